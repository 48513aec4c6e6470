// The card of one token: the thought before it, and its effect.

import { nats, percent, weight } from "./numbers.js";
import { FULL, paint } from "./scale.js";
import { marked } from "./spaces.js";
import { gain, isThoughtAbout } from "./token.js";

/** Space between a token and its card, and between the card and the window's edge, in pixels. */
const GAP = 8;

export class Card {
  #element;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
  }

  /** Whether the card contains a node, or is it. */
  contains(node) {
    return this.#element.contains(node);
  }

  hide() {
    this.#element.hidden = true;
  }

  /**
   * Show a token's card.
   *
   * @param {import("./token.js").Token} token
   * @param {HTMLElement} anchor The element of the token, which the card is to stand beside.
   */
  show(token, anchor) {
    this.#fill(token);
    this.#element.hidden = false;
    this.#place(anchor);
  }

  #fill(token) {
    const { logprob } = token;
    const expected = token.thought?.expected_gain ?? null;
    const thought = isThoughtAbout(token) ? token.thought : null;
    const gained = gain(token);
    this.#setPart("name", token.isEnd ? "end of the text" : marked(token.text || token.name));
    const chip = this.#setPart("gain", gained === null ? null : `${nats(gained)} nats`);
    chip.removeAttribute("data-gain");
    paint(chip, gained);
    this.#setPart("thought", thought && thought.text.trim());
    this.#setPart("note", noteOn(token));
    this.#measureNats("expected", expected);
    this.#measureNats("saved", gained);
    this.#measure("weight", thought && weight(thought.mixing_weight), thought?.mixing_weight);
    this.#measureProbability("without", thought && thought.base_logprob);
    this.#measureProbability("with", thought && thought.mixed_logprob);
    this.#measureProbability("alone", thought ? null : logprob);
    const alternatives = token.likeliest.map(([name, value]) => alternative(name, value));
    this.#part("likeliest").replaceChildren(...alternatives);
    this.#part("likeliest").closest("[data-row]").hidden = alternatives.length === 0;
  }

  #measureNats(name, value) {
    if (value === null) this.#measure(name, null);
    else this.#measure(name, `${nats(value)} nats`, value / FULL);
  }

  #measureProbability(name, logprob) {
    if (logprob === null) this.#measure(name, null);
    else this.#measure(name, percent(logprob), Math.exp(logprob));
  }

  #measure(name, text, share = 0) {
    const part = this.#setPart(name, text);
    const filled = `${100 * Math.max(0, Math.min(1, share))}%`;
    part.closest("[data-row]").style.setProperty("--filled", filled);
  }

  /** Fills a part with a text or nodes; null hides its row. */
  #setPart(name, content) {
    const part = this.#part(name);
    part.replaceChildren(...[content ?? ""].flat());
    part.closest("[data-row]").hidden = content === null;
    return part;
  }

  #part(name) {
    return this.#element.querySelector(`[data-part=${name}]`);
  }

  // In a narrow window the style sheet puts the card at the lower edge instead.
  #place(anchor) {
    const card = this.#element.getBoundingClientRect();
    const token = anchor.getClientRects()[0];
    const isBelow = token.bottom + GAP + card.height <= innerHeight || token.top < card.height + GAP;
    const rightmost = document.documentElement.clientWidth - card.width - GAP;
    const left = Math.max(GAP, Math.min(token.left - 2 * GAP, rightmost));
    const top = isBelow ? token.bottom + GAP : token.top - GAP - card.height;
    this.#element.style.setProperty("--left", `${Math.round(left + scrollX)}px`);
    this.#element.style.setProperty("--top", `${Math.round(top + scrollY)}px`);
  }
}

function noteOn(token) {
  const { thought, logprob } = token;
  if (isThoughtAbout(token)) return null;
  if (thought) return "Not thought about: a thought was not expected to save more than the threshold.";
  if (logprob === null) return "The first token has no prediction.";
  return document.body.dataset.thoughts === "hidden"
    ? "Thoughts are not shown by this server."
    : "Sampled without a thought.";
}

function alternative(name, logprob) {
  const item = document.createElement("li");
  const word = document.createElement("span");
  word.className = "name";
  word.append(...marked(name));
  item.append(word, ` ${percent(logprob)}`);
  return item;
}
