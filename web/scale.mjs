// Numbers on an axis.
// @ts-check

/**
 * A range that holds all values and, when it is near, zero.
 * @param {(number | null)[]} values @returns {[number, number]}
 */
export function domain(values) {
  const known = /** @type {number[]} */ (values.filter((v) => v !== null && Number.isFinite(v)));
  if (!known.length) return [0, 1];
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const low = least < 0 ? least : least < 0.6 * most ? 0 : least - 0.1 * (most - least);
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
