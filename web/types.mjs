// @ts-check
/**
 * What a node shows of its last run, made by drawing/node_views.py. Steps count from 0. B is the batch size.
 *
 * @typedef {object} View
 * @property {"escape" | "noise" | "guidance" | "text"} kind
 * @property {string} run  the id of the run
 * @property {boolean} done
 * @property {string} headline
 * @property {string[]} notes
 * @property {string} warning  what the user should not miss, or ""
 * @property {number} steps  points on the horizontal axis
 * @property {string} x  the name of this axis
 * @property {Series[]} series  what can be on the vertical axis; the first is shown until the user chooses another
 * @property {boolean[]} marked  (B,) images that need attention
 * @property {number[]} begins  (B,) the first guided step, `steps` if there is none; [] where nothing is deferred
 * @property {Record<string, number[][]>} acted  for each guidance: (B, steps) its strength, 0 where it did not act
 * @property {Nearest[]} nearest  images to show below the curve
 * @property {Word[]} words  a prompt in pieces, with the words that pull in colour
 * @property {Record<string, number>} suggested  values for inputs of other nodes, by the inputs' names
 */

/**
 * @typedef {object} Series
 * @property {string} y  its name
 * @property {(number | null)[][]} lines  (B, steps), null where nothing was measured
 * @property {(number | null)[]} limit  a threshold: one value for each step, or one for all, or []
 * @property {string} limit_name
 */

/**
 * @typedef {object} Word
 * @property {string} text
 * @property {number} share  0 … 1: of the pull of the word that pulls most
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
  marked: [], begins: [], acted: {}, nearest: [], words: [], suggested: {},
};

/**
 * Fill in the fields that are missing: the history may hold views of an older version of the pack.
 * @param {Partial<View>} given @returns {View}
 */
export function complete(given) {
  const view = { ...EMPTY, ...given };
  view.series = view.series.map((series) => ({ ...{ y: "", lines: [], limit: [], limit_name: "" }, ...series }));
  view.nearest = view.nearest.map((near) => ({ ...{ name: "", picture: "", closeness: null }, ...near }));
  return view;
}
