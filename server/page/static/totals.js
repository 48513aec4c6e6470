// Totals of an answer: its cost, and the gain of its thoughts.

import { nats } from "./numbers.js";
import { gain } from "./token.js";

export class Totals {
  tokens = 0;
  thoughtTokens = 0;
  /** Of the base model, for all tokens; null as long as the server has not told, 0 where the text
   * was only read. */
  passes = null;
  milliseconds = 0;
  #gains = [];
  // Nats of the tokens that were predicted.
  #logprobs = [];

  /** @param {number} budget */
  constructor(budget) {
    this.budget = budget;
  }

  /** @param {import("./token.js").Token[]} tokens */
  count(tokens) {
    this.tokens += tokens.length;
    this.#gains.push(...tokens.map(gain).filter((value) => value !== null));
    this.#logprobs.push(...tokens.map((token) => token.logprob).filter((value) => value !== null));
  }

  /** In nats, of all thoughts; null without any. */
  get gain() {
    return this.#gains.length ? this.#gains.reduce((sum, value) => sum + value, 0) : null;
  }

  /** Passes, beside those of thinking before each of so many tokens. */
  #passesBeside(tokens) {
    const always = tokens * (this.budget + 1);
    if (!this.passes) return [];
    const isLess = this.budget > 0 && this.passes < always;
    return [["passes", isLess ? `${this.passes}, not ${always}` : String(this.passes)]];
  }

  /** Names and numbers, for reading. */
  rows() {
    const perToken = this.tokens ? this.milliseconds / this.tokens : 0;
    return [
      ["tokens", String(this.tokens)],
      ["thought tokens", String(this.thoughtTokens)],
      ["ms per token", perToken.toFixed(perToken < 10 ? 1 : 0)],
      ["gain, nats", this.gain === null ? "–" : nats(this.gain)],
      ...this.#passesBeside(this.tokens),
    ];
  }

  /** The same for a measured text: the mean loss of its tokens, in nats. */
  rowsOfMeasured() {
    const number = this.#logprobs.length;
    const loss = number ? -this.#logprobs.reduce((sum, value) => sum + value, 0) / number : 0;
    const before = this.gain === null ? null : loss + this.gain / number;
    return [
      ["tokens", String(this.tokens)],
      ["thought tokens", String(this.thoughtTokens)],
      [
        "loss per token",
        before === null ? loss.toFixed(3) : `${before.toFixed(3)} → ${loss.toFixed(3)}`,
      ],
      ["gain, nats", this.gain === null ? "–" : nats(this.gain)],
      // Nothing predicts the first token.
      ...this.#passesBeside(number),
    ];
  }
}
