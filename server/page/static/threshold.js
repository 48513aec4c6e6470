// Thresholds: how much a thought must be expected to save for the model to think it, in nats.

/** Choices of the slider, 0 = think before every token; those that a model names come between. */
const USUAL = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];

/** The choices of the slider beside a model, as `/v1/models` describes it; ascending. */
export function thresholdsBeside({ default_thought_threshold: usual, effort_thresholds: efforts }) {
  const named = [usual, ...Object.values(efforts ?? {})];
  return [...new Set([...USUAL, ...named])].sort((a, b) => a - b);
}

/** What the model goes by, and its default, in a sentence. */
export function sentenceOn({ gate, default_thought_threshold: usual }) {
  const by = gate === "learned" ? "The model’s thought gate" : "The entropy of the plain prediction";
  const ruled = usual === 0 ? "think before every token" : `${usual} nats`;
  return `${by} tells what a thought may save. Default: ${ruled}.`;
}
