// Links: a prompt and its settings in the part of the URL that browsers do not send.

/** @param {import("./settings.js").Settings} settings */
export function toFragment(settings) {
  const { prompt, mode, budgets, threshold, temperature, thoughtTemperature, maxTokens, seed } =
    settings;
  return `#${new URLSearchParams({
    prompt,
    mode,
    budgets: budgets.join(),
    threshold,
    temperature,
    thought_temperature: thoughtTemperature,
    max_tokens: maxTokens,
    seed: seed ?? "",
  })}`;
}

/**
 * The settings in a link; those that are not in it, or not valid, are missing.
 *
 * @returns {Partial<import("./settings.js").Settings>}
 */
export function fromFragment(fragment) {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const number = (name) => numberIn(fields.get(name));
  const budgets = (fields.get("budgets") ?? "").split(",").map(numberIn).slice(0, 2);
  const found = {
    prompt: fields.get("prompt") ?? undefined,
    mode: ["continue", "measure"].includes(fields.get("mode")) ? fields.get("mode") : undefined,
    budgets: budgets.includes(undefined) ? undefined : budgets,
    threshold: number("threshold"),
    temperature: number("temperature"),
    thoughtTemperature: number("thought_temperature"),
    maxTokens: number("max_tokens"),
    seed: fields.get("seed") === "" ? null : number("seed"),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

function numberIn(text) {
  const number = Number(text || NaN);
  return Number.isFinite(number) ? number : undefined;
}
