// Example prompts.

// For the demonstration model (docs/demonstration.md), which is recognised by the first: the prompt
// that its checkpoint suggests. The right answers, which are not checked, are 10, 20, 17, 6 and 7.
const DEMONSTRATION = [
  {
    title: "Ben’s apples",
    prompt:
      "Ben has 7 apples. On Monday he finds 5. On Tuesday he sells half. On Wednesday he triples " +
      "them. On Thursday he eats 8. On Friday he keeps all. On Saturday he keeps all. On Sunday " +
      "Ben has",
  },
  {
    title: "Eve’s apples",
    prompt:
      "Eve has 5 apples. On Monday she doubles them. On Tuesday she drops 1. On Wednesday she " +
      "triples them. On Thursday she drops 7. On Friday she keeps all. On Saturday she keeps all. " +
      "On Sunday Eve has",
  },
  {
    title: "Cal’s eggs",
    prompt:
      "Cal has 12 eggs. On Monday he drops 2. On Tuesday he drops half. On Wednesday he picks 6. " +
      "On Thursday he eats 3. On Friday he picks 9. On Saturday he keeps all. On Sunday Cal has",
  },
  {
    title: "A dial, ten turns",
    prompt:
      "Ben has the dial at 2: up down triple swap triple hop swap up swap down rest rest. Now it " +
      "shows",
  },
  {
    title: "A dial, nine turns",
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
