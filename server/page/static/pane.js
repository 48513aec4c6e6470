// A pane: one answer, token by token.

import { nats } from "./numbers.js";
import { paint } from "./scale.js";
import { gain, isThoughtAbout } from "./token.js";
import { term } from "./terms.js";
import { addStep, walkable } from "./walk.js";

/** How much of a long prompt is shown before the output, in characters. */
const SHOWN_OF_PROMPT = 400;
/** How much of it where it is already shown above, at least. */
const SHOWN_AGAIN = 20;
/** Which totals are explained, and by what. */
const TERMS = { "gain, nats": "gain", passes: "passes", "loss per token": "loss" };

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
      verdict: part("pane-verdict"),
      output: part("output"),
      cursor: part("cursor"),
      trouble: part("trouble"),
      totals: part("totals"),
    };
    part("pane-budget").textContent = budget;
    pane.setAttribute("aria-label", `Budget ${budget}`);
    this.#parts.output.setAttribute("aria-label", `Tokens, budget ${budget}`);
    const shown = given.length > SHOWN_OF_PROMPT ? `… ${given.slice(-SHOWN_OF_PROMPT)}` : given;
    // The style sheet hides the far part in narrow windows.
    const near = Math.max(0, shown.lastIndexOf(" ", shown.length - SHOWN_AGAIN));
    part("far").textContent = shown.slice(0, near);
    part("near").textContent = shown.slice(near);
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
    const { totals } = this.#parts;
    // What is there stays: it may have the focus.
    rows.forEach(([name, number], index) => {
      const row = totals.children[index] ?? totals.appendChild(document.createElement("div"));
      if (row.firstChild?.textContent !== name) {
        const title = document.createElement("dt");
        title.append(name in TERMS ? term(TERMS[name], name) : name);
        row.replaceChildren(title, document.createElement("dd"));
      }
      row.lastChild.textContent = number;
    });
  }

  get isOver() {
    return this.#parts.cursor.hidden;
  }

  /** @returns {{gain: number, token: import("./token.js").Token, element: HTMLElement} | null} */
  get largestGain() {
    const all = [...this.#parts.output.children].map((element) => {
      const token = this.#tokens.get(element);
      return { gain: gain(token) ?? -Infinity, token, element };
    });
    return all.reduce((best, one) => (one.gain > (best?.gain ?? 0) ? one : best), null);
  }

  /** @param {string} verdict On the answer; "" where none is known. */
  showVerdict(verdict) {
    this.#parts.verdict.textContent = verdict;
    this.#parts.verdict.dataset.right = String(verdict === "right");
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
