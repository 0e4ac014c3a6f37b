// The numbers on an axis.
// @ts-check

/**
 * A range that holds all values of all lines, and zero: a small gap must not look like a large one.
 * @param {(number | null)[][]} lines @returns {[number, number]}
 */
export function domain(lines) {
  let [least, most] = [Infinity, -Infinity];
  for (const line of lines) {
    for (const value of line) {
      if (value === null || !Number.isFinite(value)) continue;
      if (value < least) least = value;
      if (value > most) most = value;
    }
  }
  if (least > most) return [0, 1];
  const low = Math.min(0, least);
  const high = most + 0.06 * (most - low);
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/**
 * Round values inside a range, about `count` of them.
 * @param {number} low @param {number} high @param {number} count
 */
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= rough) ?? 10);
  const out = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) out.push(i * step);
  return out;
}

/** @param {number} value */
export const words = (value) => String(Number(value.toPrecision(3)));
