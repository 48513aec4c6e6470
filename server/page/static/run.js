// A run: one request at one budget, whose answer is shown in a pane as it arrives.

import { count } from "./numbers.js";
import { question } from "./question.js";
import { ConnectionLost, ServerError } from "./server.js";
import { tokensOfPrompt, tokensOfAnswer } from "./token.js";
import { Totals } from "./totals.js";

const LOST_THOUGHTS =
  "The server had no room to keep all thoughts; some are missing here " +
  "(--max-recorded-thought-tokens).";

export class Run {
  #server;
  #model;
  #settings;
  #pane;
  #totals;
  #ending = "done";

  /**
   * @param {import("./server.js").Server} server
   * @param {object} model As `/v1/models` describes it.
   * @param {import("./settings.js").Settings} settings
   * @param {import("./pane.js").Pane} pane
   */
  constructor(server, model, settings, pane) {
    this.#server = server;
    this.#model = model;
    this.#settings = settings;
    this.#pane = pane;
    this.#totals = new Totals(pane.budget);
  }

  /**
   * Ask, and show the answer until it ends or `signal` stops it.
   *
   * @returns {Promise<Error | null>} What went wrong; the pane shows it, too.
   */
  async finish(signal) {
    const isMeasuring = this.#settings.mode === "measure";
    const body = question(this.#settings, this.#pane.budget, this.#model);
    this.#pane.showState(body.thought_budget ? "thinking" : "generating", false);
    let error = null;
    try {
      await (isMeasuring ? this.#measure(body, signal) : this.#continue(body, signal));
    } catch (thrown) {
      error = thrown;
    }
    const wasStopped = error?.name === "AbortError";
    this.#pane.showState(error ? (wasStopped ? "stopped" : "failed") : this.#ending, true);
    if (!error || wasStopped) return null;
    this.#pane.showTrouble(this.#explain(error));
    return error;
  }

  async #continue(body, signal) {
    const start = performance.now();
    for await (const chunk of this.#server.stream(body, signal)) {
      const [choice] = chunk.choices;
      if (choice) this.#show(tokensOfAnswer(choice), choice, performance.now() - start);
      if (chunk.usage) {
        this.#countThoughts(thoughtTokens(chunk.usage), chunk.quiet_star?.passes);
      }
      this.#pane.showTotals(this.#totals.rows());
    }
  }

  async #measure(body, signal) {
    const start = performance.now();
    const answer = await this.#server.complete(body, signal);
    const [choice] = answer.choices;
    this.#show(tokensOfPrompt(choice), choice, performance.now() - start);
    const { prompt_thought_tokens: tokens, prompt_passes: passes } = answer.quiet_star;
    this.#countThoughts(tokens ?? 0, passes);
    this.#pane.showTotals(this.#totals.rowsOfMeasured());
    this.#ending = "measured";
  }

  #show(tokens, choice, milliseconds) {
    this.#totals.count(tokens);
    if (tokens.length) this.#totals.milliseconds = milliseconds;
    this.#pane.add(tokens);
    if (choice.finish_reason === "length") this.#ending = "done: max tokens";
    if (choice.thoughts_truncated) this.#pane.showTrouble(LOST_THOUGHTS);
  }

  #countThoughts(tokens, passes) {
    this.#totals.thoughtTokens = tokens;
    if (passes !== undefined) this.#totals.passes = passes;
  }

  #explain(error) {
    if (error instanceof ServerError) return error.message;
    if (!(error instanceof ConnectionLost)) throw error;
    const { tokens } = this.#totals;
    const when = tokens ? `after ${count(tokens, "token")}` : "before the first token";
    return `The connection to the server was lost ${when}. Run it again when the server is back.`;
  }
}

/** Thought tokens, which a server counts apart, or as OpenAI counts reasoning (`--usage openai`). */
function thoughtTokens({ thought_tokens: apart, completion_tokens_details: details }) {
  return apart ?? details.reasoning_tokens;
}
