// @ts-check
/**
 * What a node shows of its last run; made by drawing/node_views.py. Steps count from 0.
 *
 * @typedef {object} View
 * @property {"escape" | "noise" | "guidance" | "text"} kind
 * @property {string} run  tells runs apart
 * @property {boolean} done
 * @property {string} headline
 * @property {string[]} notes
 * @property {string} warning  what an artist should not miss, or ""
 * @property {number} steps  points on the horizontal axis
 * @property {string} x  what is on it
 * @property {Series[]} series  what can be on the vertical one; the first is shown until another is asked for
 * @property {boolean[]} marked  (B,) samples that need attention
 * @property {number[]} begins  (B,) first guided step, `steps` if never; [] where it means nothing
 * @property {Record<string, number[][]>} acted  by guidance: (B, steps) its strength, 0 where it did not act
 * @property {Nearest[]} nearest  pictures to show beside the curve
 */

/**
 * @typedef {object} Series
 * @property {string} y  its name
 * @property {(number | null)[][]} lines  one a sample
 * @property {(number | null)[]} limit  a threshold over the steps, one value for a constant, [] for none
 * @property {string} limit_name
 */

/**
 * @typedef {object} Nearest
 * @property {string} name
 * @property {string} picture  data URL, or ""
 * @property {number | null} closeness
 */

/** @type {View} */
const EMPTY = {
  kind: "text", run: "", done: true, headline: "", notes: [], warning: "", steps: 0, x: "step", series: [],
  marked: [], begins: [], acted: {}, nearest: [],
};

/**
 * With every field: the page may be newer than the server, or an old run's view may come out of the history.
 * @param {Partial<View>} given @returns {View}
 */
export function complete(given) {
  const view = { ...EMPTY, ...given };
  view.series = view.series.map((series) => ({ ...{ y: "", lines: [], limit: [], limit_name: "" }, ...series }));
  view.nearest = view.nearest.map((near) => ({ ...{ name: "", picture: "", closeness: null }, ...near }));
  return view;
}
