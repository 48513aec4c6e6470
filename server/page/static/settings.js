// Settings: reads and fills the form.

import { sentenceOn, thresholdsBeside } from "./threshold.js";

/**
 * @typedef {object} Settings
 * @property {string} prompt
 * @property {"continue" | "measure"} mode Say what comes next, or look at the text itself.
 * @property {number[]} budgets Thought tokens before each token; one, or two side by side.
 * @property {number} threshold Think where a thought may save more, in nats; 0 = everywhere.
 * @property {number} temperature
 * @property {number} thoughtTemperature
 * @property {number} maxTokens
 * @property {number | null} seed null: another one each time.
 */

export class SettingsForm {
  #form;
  #fields;
  /** What the positions of the slider stand for, in nats. */
  #thresholds = [0];

  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.#form = form;
    this.#fields = form.elements;
    form.addEventListener("input", () => this.#show());
    this.#fields.prompt.addEventListener("input", () => this.#complain(""));
    this.#show();
  }

  /** Set limits and defaults to those of a model as `/v1/models` has it. */
  allow(model) {
    const { max_thought_budget: most, default_thought_budget: usual } = model.quiet_star;
    const { first, second, both, threshold, thought_temperature } = this.#fields;
    this.#thresholds = thresholdsBeside(model.quiet_star);
    threshold.max = this.#thresholds.length - 1;
    threshold.value = this.#thresholds.indexOf(model.quiet_star.default_thought_threshold);
    this.#form.querySelector("#thresholds").disabled = most === 0;
    this.#form.querySelector("#threshold-hint").textContent = sentenceOn(model.quiet_star);
    for (const slider of [first, second]) slider.max = most;
    this.#fields.max_tokens.max = model.max_model_len;
    this.#form.querySelector("#budgets").disabled = most === 0;
    both.checked = most > 0;
    first.value = 0;
    second.value = usual;
    thought_temperature.value = model.quiet_star.default_thought_temperature;
    this.#show();
  }

  /** @returns {Settings} */
  read() {
    const { prompt, mode, both, first, second, threshold, temperature } = this.#fields;
    const { thought_temperature, max_tokens, seed } = this.#fields;
    return {
      prompt: prompt.value,
      mode: mode.value,
      budgets: (both.checked ? [first, second] : [second]).map((slider) => slider.valueAsNumber),
      threshold: this.#thresholds[threshold.valueAsNumber],
      temperature: temperature.valueAsNumber,
      thoughtTemperature: thought_temperature.valueAsNumber,
      maxTokens: max_tokens.valueAsNumber,
      seed: Number.isNaN(seed.valueAsNumber) ? null : seed.valueAsNumber,
    };
  }

  /** @param {Partial<Settings>} settings What is missing stays as it is. */
  write(settings) {
    const { prompt, mode, budgets, temperature, thoughtTemperature, maxTokens, seed } = settings;
    if (settings.threshold !== undefined) this.#writeThreshold(settings.threshold);
    const fields = this.#fields;
    if (prompt !== undefined) fields.prompt.value = prompt;
    if (mode !== undefined) fields.mode.value = mode;
    if (budgets !== undefined) {
      fields.both.checked = budgets.length === 2 && !fields.both.matches(":disabled");
      if (budgets.length === 2) fields.first.value = budgets[0];
      fields.second.value = budgets.at(-1);
    }
    if (temperature !== undefined) fields.temperature.value = temperature;
    if (thoughtTemperature !== undefined) fields.thought_temperature.value = thoughtTemperature;
    if (maxTokens !== undefined) fields.max_tokens.value = maxTokens;
    if (seed !== undefined) fields.seed.value = seed ?? "";
    this.#complain("");
    this.#show();
  }

  /** Whether there is a prompt; if not, the form shows an error. */
  check() {
    const isThere = this.#fields.prompt.value !== "";
    this.#complain(isThere ? "" : "The prompt is empty: write a prompt first.");
    if (!isThere) this.#fields.prompt.focus();
    return isThere;
  }

  // A link may have another one than the slider's.
  #writeThreshold(threshold) {
    if (threshold < 0) return;
    const slider = this.#fields.threshold;
    this.#thresholds = [...new Set([...this.#thresholds, threshold])].sort((a, b) => a - b);
    slider.max = this.#thresholds.length - 1;
    slider.value = this.#thresholds.indexOf(threshold);
  }

  #complain(message) {
    this.#form.querySelector("#prompt-error").textContent = message;
    this.#fields.prompt.setAttribute("aria-invalid", String(message !== ""));
  }

  #shown(slider) {
    if (slider !== this.#fields.threshold) {
      return slider.valueAsNumber.toFixed(slider.step === "1" ? 0 : 1);
    }
    const threshold = this.#thresholds[slider.valueAsNumber];
    const text = threshold === 0 ? "always" : `${threshold} nats`;
    slider.setAttribute("aria-valuetext", threshold === 0 ? "before every token" : text);
    return text;
  }

  // The numbers beside the sliders, and which sliders have an effect.
  #show() {
    for (const slider of this.#form.querySelectorAll("input[type=range]")) {
      slider.labels[0].querySelector("output").value = this.#shown(slider);
      const share = (slider.value - slider.min) / (slider.max - slider.min || 1);
      slider.style.setProperty("--share", share);
    }
    const { both, first, mode } = this.#fields;
    first.closest(".slider").hidden = !both.checked;
    this.#form.querySelector("#second-name").textContent = both.checked ? "second" : "tokens";
    this.#form.dataset.mode = mode.value;
    for (const name of ["temperature", "max_tokens"]) {
      this.#fields[name].disabled = mode.value === "measure";
    }
  }
}
