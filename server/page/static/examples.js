// Example prompts.

// For the demonstration model (docs/demonstration.md), which is recognised by the first: the prompt
// that its checkpoint suggests. An answer is the number that a right continuation begins with.
const DEMONSTRATION = [
  {
    title: "Ben’s apples",
    answer: "10",
    prompt:
      "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples " +
      "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday " +
      "Ben has",
  },
  {
    title: "Eve’s apples",
    answer: "20",
    prompt:
      "Eve has 5 apples. On Monday she doubles them. On Tuesday she drops 1. On Wednesday she " +
      "triples them. On Thursday she drops 7. On Friday she keeps all. On Saturday she keeps all. " +
      "On Sunday Eve has",
  },
  {
    title: "Cal’s eggs",
    answer: "17",
    prompt:
      "Cal has 12 eggs. On Monday he drops 2. On Tuesday he drops half. On Wednesday he picks 6. " +
      "On Thursday he eats 3. On Friday he picks 9. On Saturday he keeps all. On Sunday Cal has",
  },
  {
    title: "A dial, ten turns",
    answer: "6",
    prompt:
      "Ben has the dial at 2: up down triple swap triple hop swap up swap down rest rest. Now it " +
      "shows",
  },
  {
    title: "A dial, nine turns",
    answer: "7",
    prompt:
      "Hal has the dial at 9: up hop up flip flip triple swap down flip rest rest rest. Now it " +
      "shows",
  },
  { title: "A story of its own", prompt: "Ann has", temperature: 0.9, maxTokens: 80 },
];
const USUAL = { temperature: 0, maxTokens: 24, seed: 1 };
/** The settings with which thinking helps the demonstration model most. */
const GREEDY = { ...USUAL, thoughtTemperature: 0 };

/**
 * Examples for a model that suggests `prompt`: settings, each with a title.
 *
 * @returns {({title: string} & Partial<import("./settings.js").Settings>)[]}
 */
export function examplesBeside(prompt) {
  if (prompt !== DEMONSTRATION[0].prompt) return [{ ...USUAL, title: "An example", prompt }];
  return DEMONSTRATION.map((example) => ({ ...GREEDY, ...example }));
}

/**
 * Whether an answer to an example is right, in words; "" for texts that are none of them.
 *
 * @param {string} prompt
 * @param {string} text What the model went on with.
 */
export function verdictOn(prompt, text) {
  const right = DEMONSTRATION.find((example) => example.prompt === prompt)?.answer;
  if (right === undefined) return "";
  return text.match(/\d+/)?.[0] === right ? "right" : `wrong: ${right} is right`;
}
