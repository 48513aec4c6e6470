// A run: one request at one budget, whose answer is shown in a pane as it arrives.

import { Alternatives } from "./alternatives.js";
import { verdictOn } from "./examples.js";
import { count } from "./numbers.js";
import { question } from "./question.js";
import { ConnectionLost, ServerError } from "./server.js";
import { tokensOfPrompt, tokensOfAnswer } from "./token.js";
import { Totals } from "./totals.js";

const LOST_THOUGHTS =
  "The server had no room to keep all thoughts; some are missing here " +
  "(--max-recorded-thought-tokens).";

/** After how long without a token the page asks who else is being served, in milliseconds. */
const PATIENCE = 1000;

export class Run {
  #server;
  #model;
  #settings;
  #pane;
  #totals;
  #alternatives;
  #ending = "done";
  // Of the prompt and what has followed it; none of a measured text.
  #ids = [];
  #tokens = [];

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
    this.#alternatives = new Alternatives(server, model, settings, pane.budget);
  }

  /**
   * Ask, and show the answer until it ends or `signal` stops it.
   *
   * @returns {Promise<Error | null>} What went wrong; the pane shows it, too.
   */
  async finish(signal) {
    const isMeasuring = this.#settings.mode === "measure";
    const body = question(this.#settings, this.#pane.budget, this.#model);
    const watch = setInterval(() => this.#sayWhoElse(), PATIENCE);
    this.#pane.showState(this.#doing, false);
    let error = null;
    try {
      await (isMeasuring ? this.#measure(body, signal) : this.#continue(body, signal));
      clearInterval(watch);
      if (!isMeasuring) this.#pane.showVerdict(verdictOn(body.prompt, this.#pane.text));
      await this.#compare(signal);
    } catch (thrown) {
      error = thrown;
    }
    clearInterval(watch);
    const wasStopped = error?.name === "AbortError";
    this.#pane.showState(error ? (wasStopped ? "stopped" : "failed") : this.#ending, true);
    if (!error || wasStopped) return null;
    this.#pane.showTrouble(this.#explain(error));
    return error;
  }

  get #doing() {
    if (this.#settings.mode === "measure") return "measuring";
    return this.#pane.budget ? "thinking" : "generating";
  }

  /** As long as there is no token: it may wait for others. */
  async #sayWhoElse() {
    const others = await this.#server.othersInFlight();
    if (this.#tokens.length || this.#pane.isOver) return;
    const doing = this.#settings.mode === "measure" ? this.#doing : "waiting";
    const beside = `${doing} beside ${count(others, "other request")}`;
    this.#pane.showState(others ? beside : this.#doing, false);
  }

  async #continue(body, signal) {
    const start = performance.now();
    for await (const chunk of this.#server.stream(body, signal)) {
      const [choice] = chunk.choices;
      if (choice) this.#ids.push(...(choice.prompt_token_ids ?? []), ...(choice.token_ids ?? []));
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
    if (tokens.length && !this.#tokens.length) this.#pane.showState(this.#doing, false);
    this.#tokens.push(...tokens);
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

  /** Add to each token what the base model would have said, and ways to think again. */
  async #compare(signal) {
    const { budget } = this.#pane;
    if (!budget || !this.#model.quiet_star.allow_return_thoughts || !this.#tokens.length) return;
    const text = this.#ids.length ? this.#ids : this.#settings.prompt;
    let found;
    try {
      found = await this.#alternatives.withoutThoughts(text, signal);
    } catch (error) {
      // It is an extra: a text that fills the context, say, cannot be read again.
      if (error instanceof ServerError || error instanceof ConnectionLost) return;
      throw error;
    }
    const first = found.ids.length - this.#tokens.length;
    this.#tokens.forEach((token, number) => {
      const place = first + number;
      // Nothing predicts the first of a text.
      if (place === 0) return;
      token.before = found.likeliest[place];
      const ids = found.ids.slice(0, place + 1);
      token.sample = () => this.#alternatives.thoughts(ids);
      token.predict = (thought) => this.#alternatives.after(ids, thought);
    });
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
