// The editor of a thought: its words, and what another thought would have made of the token.

import { percent, weight } from "./numbers.js";
import { ConnectionLost } from "./server.js";
import { isThoughtAbout } from "./token.js";

export class Editor {
  #form;
  #words;
  #status;
  #show;
  /** What is being edited; null while it is closed. */
  #token = null;
  /** What had the focus when it was opened. */
  #before = null;
  /** How often a prediction was asked for: only the last one is shown. */
  #asked = 0;

  /**
   * @param {HTMLFormElement} form
   * @param {(prediction: import("./alternatives.js").Prediction | null) => void} show Shows a
   *   prediction, or that there is none; the editor may have another size then.
   */
  constructor(form, show) {
    this.#form = form;
    this.#words = form.querySelector("textarea");
    this.#status = form.querySelector("[role=status]");
    this.#show = show;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#predict();
    });
    this.#words.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.querySelector("[type=button]").addEventListener("click", () => this.leave());
  }

  get isOpen() {
    return this.#token !== null;
  }

  /** Whether the thought before a token can be edited. */
  static suits(token) {
    return token.predict !== null && isThoughtAbout(token);
  }

  /** @param {import("./token.js").Token} token One that it suits. */
  open(token) {
    if (this.#token === token) return;
    this.#before = document.activeElement;
    this.#token = token;
    this.#words.value = token.thought.text.trim();
    this.#words.setAttribute("aria-label", `Thought before ${token.isEnd ? "the end" : token.name}`);
    this.#status.textContent = "";
    this.#form.hidden = false;
    this.#show(null);
    this.#words.focus();
    const end = this.#words.value.length;
    this.#words.setSelectionRange(end, end);
  }

  /** Leave the thought as it is. */
  leave() {
    const before = this.#before;
    this.close();
    if (before?.isConnected) before.focus();
  }

  /** The same, if it is open, without moving the focus. */
  close() {
    if (!this.isOpen) return;
    this.#token = this.#before = null;
    this.#form.hidden = true;
    this.#show(null);
  }

  async #predict() {
    const token = this.#token;
    this.#asked += 1;
    const asked = this.#asked;
    const thought = this.#read(token.thought);
    if (thought === "") {
      this.#say("The thought is empty: write a word or more.");
      return;
    }
    this.#say("Thinking …");
    let prediction = null;
    let message = "";
    try {
      prediction = await token.predict(thought);
      message = summaryOf(prediction, token);
    } catch (error) {
      const isLost = error instanceof ConnectionLost;
      message = `No prediction: ${isLost ? "the server does not answer." : error.message}`;
    }
    if (this.#token !== token || this.#asked !== asked) return;
    this.#status.textContent = message;
    this.#show(prediction);
  }

  #say(message) {
    this.#status.textContent = message;
    this.#show(null);
  }

  /** The words; as tokens where they are the original ones, which need not be those of the words. */
  #read({ text, token_ids: ids }) {
    const words = this.#words.value.trim();
    if (words === text.trim()) return ids;
    // Most tokenizers tell a word behind a space from one without.
    return words && text.match(/^\s*/)[0] + words;
  }
}

/** @param {import("./alternatives.js").Prediction} prediction */
function summaryOf({ without, after, weight: share }, { name, isEnd, thought }) {
  const it = isEnd ? "the end" : `“${name.trim() || name}”`;
  const text =
    `After this thought ${it} has ${percent(after)}: with none ${percent(without)}, with the model’s ` +
    `own ${percent(thought.mixed_logprob)}. Mixing weight ${weight(share)}.`;
  return text.replaceAll(" %", "\u00a0%");
}
