// @ts-check
/**
 * What a node shows of its last run; made by nodes/views.py. Steps count from 0.
 *
 * @typedef {object} View
 * @property {"escape" | "noise" | "guidance" | "check"} kind
 * @property {string} run  tells runs apart
 * @property {boolean} done
 * @property {string} headline
 * @property {string[]} notes
 * @property {string} warning  what an artist should not miss, or ""
 * @property {number} steps  points on the horizontal axis
 * @property {string} x  what is on it
 * @property {string} y  what is on the vertical one
 * @property {(number | null)[][]} lines  one a sample
 * @property {boolean[]} marked  (B,) samples that need attention
 * @property {number[]} begins  (B,) first guided step, `steps` if never; [] where it means nothing
 * @property {(number | null)[]} limit  a threshold over the steps, one value for a constant, [] for none
 * @property {string} limit_name
 * @property {Record<string, number[][]>} acted  by guidance: (B, steps) its strength, 0 where it did not act
 * @property {Nearest[]} nearest  pictures to show beside the curve
 */

/**
 * @typedef {object} Nearest
 * @property {string} name
 * @property {string} picture  data URL, or ""
 * @property {number} closeness
 */
export {};
