// Numbers as text, with true minus signs.

/** Nats with a sign, "+2.09". */
export function nats(value) {
  return `${Math.abs(value) < 0.005 ? "±" : value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;
}

/** A log-probability as a percentage, exact enough for its size: "97 %", "0.04 %". */
export function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  if (value < 0.001) return "< 0.001 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return `${Number(value.toPrecision(value < 1 ? 1 : 3))} %`;
}

/** A mixing weight, "0.61" or "−0.04". */
export function weight(value) {
  return `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`;
}

/** Nats as a factor of a probability, "8.1 times as likely", "1.2 times less likely". */
export function times(nats) {
  const factor = Math.exp(Math.abs(nats));
  const shown = factor < 10 ? factor.toFixed(1) : factor < 1e6 ? factor.toFixed(0) : "over a million";
  return nats < 0 ? `${shown} times less likely` : `${shown} times as likely`;
}

/** "1 token", "12 tokens". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
