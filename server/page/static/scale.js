// The scale: how gains become colours. The style sheet has the two hues, this file their strength.

/** Gains of this many nats, and larger ones, have the full colour. */
export const FULL = 3;
/** Gains below this many nats have no colour. */
const NOTHING = 0.02;
// Half strength is reached at about 0.5 nats, so that small gains differ visibly from none.
const BEND = 0.1;

/** The marks of the legend, in nats. */
export const MARKS = [-3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3];

/** Colours `element` by a gain in nats; null leaves it uncoloured. */
export function paint(element, gain) {
  if (gain === null || Math.abs(gain) < NOTHING) return;
  element.dataset.gain = gain > 0 ? "helped" : "hurt";
  element.style.setProperty("--strength", `${Math.round(100 * strength(gain))}%`);
}

/** From 0 (no colour) to 1 (full colour): logarithmic, but 0 at a gain of 0. */
function strength(gain) {
  return Math.min(1, Math.asinh(Math.abs(gain) / BEND) / Math.asinh(FULL / BEND));
}
