// A pane: one answer, token by token.

import { nats } from "./numbers.js";
import { paint } from "./scale.js";
import { gain, isThoughtAbout } from "./token.js";
import { addStep, walkable } from "./walk.js";

/** How much of a long prompt is shown before the output, in characters. */
const SHOWN_OF_PROMPT = 400;

export class Pane {
  #tokens = new WeakMap();
  #parts;

  /**
   * @param {number} budget
   * @param {string} given The prompt, if the answer goes on from it.
   */
  constructor(budget, given) {
    this.budget = budget;
    const pane = document.querySelector("#pane").content.cloneNode(true).firstElementChild;
    const part = (name) => pane.querySelector(`.${name}`);
    this.element = pane;
    this.#parts = {
      state: part("pane-state"),
      output: part("output"),
      cursor: part("cursor"),
      trouble: part("trouble"),
      totals: part("totals"),
    };
    part("pane-budget").textContent = budget;
    pane.setAttribute("aria-label", `Budget ${budget}`);
    this.#parts.output.setAttribute("aria-label", `Tokens, budget ${budget}`);
    part("given").textContent =
      given.length > SHOWN_OF_PROMPT ? `… ${given.slice(-SHOWN_OF_PROMPT)}` : given;
    walkable(this.#parts.output);
  }

  /** The output so far. */
  get text() {
    return this.#parts.output.textContent;
  }

  /** The token that `element` shows, if it is one of this pane's. */
  tokenOf(element) {
    return this.#tokens.get(element);
  }

  /** @param {import("./token.js").Token[]} tokens */
  add(tokens) {
    for (const token of tokens) this.#add(token);
  }

  /** @param {[string, string][]} rows */
  showTotals(rows) {
    this.#parts.totals.replaceChildren(
      ...rows.map(([name, number]) => {
        const row = document.createElement("div");
        row.append(described("dt", name), described("dd", number));
        return row;
      }),
    );
  }

  /** @param {string} state One word or two: what is going on, or how it ended. */
  showState(state, isOver) {
    this.#parts.state.textContent = state;
    this.#parts.cursor.hidden = isOver;
    this.element.setAttribute("aria-busy", String(!isOver));
  }

  showTrouble(message) {
    this.#parts.trouble.textContent = message;
  }

  // White space before a word is not part of its element, so that colours begin where words do.
  #add(token) {
    const element = document.createElement("span");
    const word = token.text.trimStart();
    const space = word ? token.text.slice(0, token.text.length - word.length) : "";
    element.className = "token";
    element.textContent = word || token.text;
    if (token.isEnd) element.classList.add("end");
    else if (token.text === "") element.classList.add("blank");
    else if (!word && token.text.includes("\n")) element.classList.add("line");
    element.setAttribute("aria-label", nameOf(token));
    element.setAttribute("aria-describedby", "card");
    if (token.thought) element.dataset.thought = isThoughtAbout(token) ? "there" : "skipped";
    paint(element, gain(token));
    this.#tokens.set(element, token);
    this.#parts.output.append(space);
    addStep(this.#parts.output, element);
  }
}

function nameOf(token) {
  const name = token.isEnd ? "end of the text" : `“${token.text || token.name}”`;
  const gained = gain(token);
  if (token.thought && gained === null) return `${name}, not thought about`;
  return gained === null ? name : `${name}, ${nats(gained)} nats`;
}

function described(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}
