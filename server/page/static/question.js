// Requests: what one pane asks the server for.

import { NUM_LIKELIEST } from "./alternatives.js";

/**
 * The body of the request for one budget.
 *
 * @param {import("./settings.js").Settings} settings
 * @param {number} budget
 * @param {object} model As `/v1/models` describes it.
 */
export function question(settings, budget, model) {
  const body = {
    model: model.id,
    prompt: settings.prompt,
    thought_budget: budget,
    thought_temperature: settings.thoughtTemperature,
    logprobs: NUM_LIKELIEST,
  };
  if (budget > 0) body.thought_threshold = settings.threshold;
  if (settings.seed !== null) body.seed = settings.seed;
  if (model.quiet_star.allow_return_thoughts) body.return_thoughts = true;
  return settings.mode === "measure" ? measuring(body) : continuing(body, settings);
}

function continuing(body, { temperature, maxTokens }) {
  return {
    ...body,
    temperature,
    max_tokens: maxTokens,
    // An echoed text would be left out with it.
    return_token_ids: true,
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  };
}

function measuring(body) {
  return { ...body, echo: true, max_tokens: 0, temperature: 0 };
}
