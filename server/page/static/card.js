// The card of one token: the thought before it, and its effect.

import { Editor } from "./editor.js";
import { nats, percent, times, weight } from "./numbers.js";
import { FULL, paint } from "./scale.js";
import { marked } from "./spaces.js";
import { gain, isThoughtAbout } from "./token.js";

/** Space between a token and its card, and between the card and the window's edge, in pixels. */
const GAP = 8;

export class Card {
  #element;
  #editor;
  /** What it shows, and beside what. */
  #token = null;
  #anchor = null;
  #isBelow = true;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.#element = element;
    this.#editor = new Editor(element.querySelector(".editor"), (it) => this.#showEdited(it));
    this.#part("sample").addEventListener("click", () => this.sample());
    this.#part("edit").addEventListener("click", () => this.edit());
  }

  get isEditing() {
    return this.#editor.isOpen;
  }

  /** Have the thought edited before the token that it shows, if there is one. */
  edit() {
    if (this.#token && Editor.suits(this.#token)) this.#editor.open(this.#token);
  }

  leaveEditor() {
    this.#editor.leave();
  }

  /** Whether the card contains a node, or is it. */
  contains(node) {
    return this.#element.contains(node);
  }

  hide() {
    this.#editor.close();
    this.#element.hidden = true;
    this.#anchor?.removeAttribute("data-shown");
    this.#token = this.#anchor = null;
  }

  /** Sample other thoughts before the token that it shows, and list them. */
  async sample() {
    const token = this.#token;
    if (!token?.sample) return;
    const sampled = this.#part("sampled");
    sampled.textContent = "Thinking again …";
    let message = "";
    try {
      token.others = await token.sample();
    } catch (error) {
      message = `No other thoughts: ${error.message}`;
    }
    // By now it may show another token.
    if (this.#token !== token) return;
    this.#listOthers(token);
    if (message) sampled.textContent = message;
    this.place();
    this.#part("others").scrollIntoView({ block: "nearest" });
  }

  /**
   * Show a token's card, below the token or, where there is no room, above it.
   *
   * @param {import("./token.js").Token} token
   * @param {HTMLElement} anchor The element of the token, which the card is to stand beside.
   */
  show(token, anchor) {
    if (token === this.#token) return;
    this.#open(token, anchor);
    const { height } = this.#element.getBoundingClientRect();
    const { top, bottom } = anchor.getClientRects()[0];
    this.#isBelow = bottom + GAP + height <= innerHeight || top < height + GAP;
    this.place();
  }

  /** The same without being asked: below the token, so that no answer is covered; the window moves. */
  showBelow(token, anchor) {
    this.#open(token, anchor);
    this.#isBelow = true;
    this.place();
    this.#element.scrollIntoView({ block: "nearest" });
    anchor.scrollIntoView({ block: "nearest" });
  }

  #open(token, anchor) {
    this.hide();
    this.#token = token;
    this.#anchor = anchor;
    anchor.dataset.shown = "";
    this.#fill(token);
    this.#element.hidden = false;
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
    this.#setPart("change", thought && token.before && changeAt(token));
    this.#setPart("thought", thought && thought.text.trim());
    this.#setPart("edit", Editor.suits(token) ? "Edit this thought" : null);
    this.#setPart("note", noteOn(token));
    this.#measureNats("expected", expected);
    this.#measureNats("saved", gained);
    this.#measure("weight", thought && weight(thought.mixing_weight), thought?.mixing_weight);
    this.#measureProbability("without", thought && thought.base_logprob);
    this.#measureProbability("with", thought && thought.mixed_logprob);
    this.#measureProbability("alone", thought ? null : logprob);
    const both = thought !== null && token.before !== null;
    this.#part("heading").textContent = both ? "and with it" : "likeliest";
    this.#list("before", both ? token.before : [], token);
    this.#list("likeliest", token.likeliest, token);
    this.#list("edited", [], token);
    this.#setPart("sample", token.sample && "Sample other thoughts here");
    this.#listOthers(token);
  }

  #list(part, likeliest, token) {
    const items = likeliest.map(([name, logprob]) => alternative(name, logprob, name === token.name));
    this.#part(part).replaceChildren(...items);
    this.#part(part).closest("[data-row]").hidden = items.length === 0;
  }

  /** @param {import("./alternatives.js").Prediction | null} prediction Of an edited thought. */
  #showEdited(prediction) {
    if (!this.#token) return;
    this.#part("edit").closest(".thinking").hidden = this.isEditing;
    this.#list("edited", prediction?.likeliest ?? [], this.#token);
    this.place();
  }

  #listOthers({ others = [] }) {
    this.#part("sampled").textContent = others.length ? summaryOf(others) : "";
    this.#part("others").replaceChildren(...others.map(otherThought));
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

  /** Stand beside the token; in a narrow window the style sheet puts it at the lower edge instead. */
  place() {
    const card = this.#element.getBoundingClientRect();
    const token = this.#anchor.getClientRects()[0];
    const rightmost = document.documentElement.clientWidth - card.width - GAP;
    const left = Math.max(GAP, Math.min(token.left - 2 * GAP, rightmost));
    const top = this.#isBelow ? token.bottom + GAP : token.top - GAP - card.height;
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

/** What the thought did to the prediction, in a sentence or two. */
function changeAt({ name, before, isEnd, thought }) {
  const { base_logprob: without, mixed_logprob: after } = thought;
  const [likeliest, logprob] = before[0];
  const it = isEnd ? "the end" : quoted(name);
  const was =
    likeliest === name
      ? `Without the thought ${it} was the likeliest, too.`
      : `Without the thought ${quoted(likeliest)} was the likeliest (${percent(logprob)}).`;
  const gained = after - without;
  const did =
    Math.abs(gained) < 0.02
      ? "It changed nothing."
      : `The thought took ${it} from ${percent(without)} to ${percent(after)}, ${times(gained)}.`;
  // No line begins with a percent sign.
  return `${was} ${did}`.replaceAll(" %", "\u00a0%");
}

function quoted(name) {
  return `“${name.trim() || name}”`;
}

/** @param {import("./alternatives.js").OtherThought[]} others */
function summaryOf(others) {
  const all = others.reduce((sum, { times: number }) => sum + number, 0);
  const mean = others.reduce((sum, { times: number, gain: gained }) => sum + number * gained, 0) / all;
  return `${all} more thoughts, ${others.length} different; on average ${nats(mean)} nats for this token:`;
}

/** @param {import("./alternatives.js").OtherThought} other */
function otherThought({ text, times: number, gain: gained }) {
  const item = document.createElement("li");
  const chip = document.createElement("span");
  chip.className = "chip";
  chip.textContent = nats(gained);
  paint(chip, gained);
  const words = document.createElement("span");
  words.className = "thought";
  words.textContent = text;
  item.append(chip, words, number > 1 ? ` × ${number}` : "");
  return item;
}

function alternative(name, logprob, isSampled) {
  const item = document.createElement("li");
  item.classList.toggle("sampled", isSampled);
  const word = document.createElement("span");
  word.className = "name";
  word.append(...marked(name));
  item.append(word, ` ${percent(logprob)}`);
  return item;
}
