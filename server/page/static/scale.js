// The scale: how gains become colours. The style sheet knows the two hues, this file how much of
// one.

/** Gains of this many nats, and larger ones, have the full colour. */
export const FULL = 3;
/** Nats below which a gain is nothing. */
const NOTHING = 0.02;
// Half of the colour is reached at about 0.5 nats: small gains can be told from none.
const BEND = 0.1;

/** The marks of the legend, in nats. */
export const MARKS = [-3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3];

/** Colours `element` by a gain in nats; null leaves it plain. */
export function paint(element, gain) {
  if (gain === null || Math.abs(gain) < NOTHING) return;
  element.dataset.gain = gain > 0 ? "helped" : "hurt";
  element.style.setProperty("--strength", `${Math.round(100 * strength(gain))}%`);
}

/** From 0 (nothing) to 1 (full colour): as a logarithm, but through zero. */
function strength(gain) {
  return Math.min(1, Math.asinh(Math.abs(gain) / BEND) / Math.asinh(FULL / BEND));
}
