// What else could have been at a token: asked for after an answer, of the same server.

import { ServerError } from "./server.js";
import { likeliestOf } from "./token.js";

/** How many thoughts are sampled for one token, and how many tokens a list has. */
const NUM_THOUGHTS = 8;
export const NUM_LIKELIEST = 5;

/**
 * @typedef {object} OtherThought
 * @property {string} text
 * @property {number} times How often it was sampled.
 * @property {number} gain In nats, of the token that is in the text.
 * @property {number} weight
 */

/**
 * @typedef {object} Prediction What a given thought makes of the token that is in the text.
 * @property {[string, number][]} likeliest Names and log-probabilities, the likeliest first.
 * @property {number} without The token's log-probability (nats) without a thought.
 * @property {number} after The same after the given one.
 * @property {number} weight
 */

export class Alternatives {
  #server;
  #model;
  #settings;
  #budget;

  /**
   * @param {import("./server.js").Server} server
   * @param {object} model As `/v1/models` describes it.
   * @param {import("./settings.js").Settings} settings
   * @param {number} budget
   */
  constructor(server, model, settings, budget) {
    this.#server = server;
    this.#model = model;
    this.#settings = settings;
    this.#budget = budget;
  }

  /**
   * The base model's likeliest tokens at each place of a text. One pass tells them all, because a
   * thought leaves no trace in what comes after it.
   *
   * @param {string | number[]} text
   * @returns {Promise<{ids: number[], likeliest: [string, number][][]}>} The text's tokens, and the
   *   list at each, which is empty at the first.
   */
  async withoutThoughts(text, signal) {
    const answer = await this.#server.complete(
      {
        model: this.#model.id,
        prompt: text,
        echo: true,
        return_token_ids: true,
        max_tokens: 0,
        thought_budget: 0,
        logprobs: NUM_LIKELIEST,
      },
      signal,
    );
    const [{ prompt_token_ids: ids, logprobs }] = answer.choices;
    return { ids, likeliest: logprobs.top_logprobs.map(likeliestOf) };
  }

  /**
   * Several thoughts before one token of a text, and what each does for that token, which alone may
   * be sampled here. The most helpful first; those that are the same are counted.
   *
   * @param {number[]} ids The text, up to the token and with it.
   * @returns {Promise<OtherThought[]>}
   */
  async thoughts(ids) {
    const { seed, thoughtTemperature } = this.#settings;
    const body = {
      model: this.#model.id,
      prompt: ids.slice(0, -1),
      allowed_token_ids: ids.slice(-1),
      max_tokens: 1,
      n: NUM_THOUGHTS,
      temperature: 1,
      thought_budget: this.#budget,
      thought_threshold: 0,
      // Greedy ones would all be the same.
      thought_temperature: thoughtTemperature || 1,
      return_thoughts: true,
    };
    const answer = await this.#server.complete(seed === null ? body : { ...body, seed });
    const found = new Map();
    for (const { thoughts } of answer.choices) {
      const [thought] = thoughts;
      // There was no room to keep it.
      if (thought === null) continue;
      const text = thought.text.trim();
      const gain = thought.mixed_logprob - thought.base_logprob;
      const times = (found.get(text)?.times ?? 0) + 1;
      found.set(text, { text, times, gain, weight: thought.mixing_weight });
    }
    return [...found.values()].sort((a, b) => b.gain - a.gain);
  }

  /**
   * The prediction of a token after a given thought; the token alone may be sampled here.
   *
   * @param {number[]} ids The text, up to the token and with it.
   * @param {string | number[]} thought
   * @returns {Promise<Prediction>}
   */
  async after(ids, thought) {
    const answer = await this.#server.complete({
      model: this.#model.id,
      prompt: ids.slice(0, -1),
      allowed_token_ids: ids.slice(-1),
      max_tokens: 1,
      temperature: 0,
      thought_budget: 0,
      first_thought: thought,
      return_thoughts: true,
      logprobs: NUM_LIKELIEST,
    });
    const [{ logprobs, thoughts }] = answer.choices;
    if (thoughts[0] === null) throw new ServerError("The server had no room to keep the thought.", 0);
    const { base_logprob: without, mixed_logprob: after, mixing_weight: weight } = thoughts[0];
    return { likeliest: likeliestOf(logprobs.top_logprobs[0]), without, after, weight };
  }
}
