// Tokens: their text, their probability, and the thought before each.

/**
 * @typedef {object} Thought As on the wire.
 * @property {number} expected_gain What it was expected to save, in nats.
 * @property {number[]} token_ids None where it was too little to think.
 * @property {string} text
 * @property {number | null} mixing_weight null where there was no thought.
 * @property {number} base_logprob Nats, without the thought.
 * @property {number} mixed_logprob Nats, with it.
 *
 * @typedef {object} Token
 * @property {string} text What it adds to the text: nothing for a part of a character or the end.
 * @property {string} name As the tokenizer writes it.
 * @property {number | null} logprob Of the prediction that was in force; null where there was none.
 * @property {[string, number][]} likeliest Names and log-probabilities, the likeliest first.
 * @property {[string, number][] | null} before The same without the thought; null if not known.
 * @property {Thought | null} thought
 * @property {(() => Promise<import("./alternatives.js").OtherThought[]>) | null} sample Samples
 *   other thoughts before it.
 * @property {((thought: string | number[]) => Promise<import("./alternatives.js").Prediction>) | null}
 *   predict Predicts it after another thought.
 * @property {boolean} isEnd Whether the model ended its text with it.
 */

/** The tokens that a chunk of a stream, or a whole answer, adds to the text. */
export function tokensOfAnswer(choice) {
  const tokens = tokensOf(choice, choice.thoughts ?? []);
  placeText(tokens, choice.text);
  const last = tokens.at(-1);
  if (last && choice.finish_reason === "stop" && choice.stop_reason === null && last.text === "") {
    last.isEnd = true;
  }
  return tokens;
}

/** The tokens of an echoed prompt, with the thought before each. */
export function tokensOfPrompt(choice) {
  const tokens = tokensOf(choice, choice.prompt_thoughts ?? []);
  placeText(tokens, choice.text);
  return tokens;
}

/** Whether the model thought before the token. */
export function isThoughtAbout({ thought }) {
  return thought !== null && thought.token_ids.length > 0;
}

/** The gain of the thought, in nats; null without one. */
export function gain(token) {
  if (!isThoughtAbout(token)) return null;
  return token.thought.mixed_logprob - token.thought.base_logprob;
}

/** Names and log-probabilities as the API has them, the likeliest first. */
export function likeliestOf(logprobs) {
  return Object.entries(logprobs ?? {}).sort((a, b) => b[1] - a[1]);
}

function tokensOf({ logprobs }, thoughts) {
  return (logprobs?.tokens ?? []).map((name, index) => ({
    text: "",
    name,
    logprob: logprobs.token_logprobs[index],
    likeliest: likeliestOf(logprobs.top_logprobs?.[index]),
    before: null,
    thought: thoughts[index] ?? null,
    sample: null,
    predict: null,
    isEnd: false,
  }));
}

// The text is authoritative; names are the tokenizer's: special tokens and parts of characters have
// names that do not appear in the text. Text that matches no name goes to the last token that was
// skipped, or to the last of all.
function placeText(tokens, text) {
  let rest = text;
  let passed = null;
  for (const token of tokens) {
    const found = rest.indexOf(token.name);
    if (found === 0 || (found > 0 && passed)) {
      if (found > 0) passed.text += rest.slice(0, found);
      token.text = token.name;
      rest = rest.slice(found + token.name.length);
      passed = null;
    } else {
      passed = token;
    }
  }
  const last = passed ?? tokens.at(-1);
  if (last) last.text += rest;
}
