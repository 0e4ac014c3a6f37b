// How much space a view needs. Sizes are pixels of the graph, at a zoom of 1.
// @ts-check
import { measured } from "./plot.mjs";
import { CURVES, setting } from "./warnings.mjs";

/** @import { View } from "./types.mjs" */

export const LINE = 16;
export const PLOT = 130; // the least height of a plot
export const NEAREST = 50; // the row of nearest images
export const NOTES = 8; // lines of notes; the rest can be scrolled to
export const MARGIN = 4; // between the node's edge and the view
const GAP = 8;
const LETTER = 6.4; // width of a letter, more than the mean

/** @param {View} view */
export const hasPlot = (view) =>
  setting(CURVES) &&
  view.steps > 0 &&
  view.series.length > 0 &&
  (view.begins.some((begin) => begin > 0) || view.series.some(measured));

/** Lines that texts need on a node of this width. @param {number} width @param {string[]} texts */
const linesOf = (width, ...texts) =>
  texts.reduce((sum, text) => sum + Math.ceil(text.length / Math.max(1, Math.floor(width / LETTER))), 0);

/** @param {View | undefined} view @param {string} stale  a line that says why it is dimmed @param {number} width */
export function heightOf(view, stale, width) {
  if (!view) return 0;
  const plot = hasPlot(view) ? PLOT + 2 * LINE + GAP : 0;
  const notes = linesOf(width, ...view.notes);
  const lines = Math.max(2, linesOf(width, view.headline)) + Math.min(notes, NOTES);
  const warning = view.warning ? LINE * Math.max(2, linesOf(width, view.warning) + 1) + GAP : 0;
  const words = view.words.length ? LINE * (linesOf(width, view.words.map((word) => word.text).join("")) + 1) + GAP : 0;
  const nearest = view.nearest.length ? NEAREST + GAP : 0;
  return warning + LINE * (lines + linesOf(width, stale)) + plot + words + nearest + GAP;
}

/** Whether a view can use more height than it needs. @param {View} view @param {number} width */
export const canGrow = (view, width) => hasPlot(view) || linesOf(width, ...view.notes) > NOTES;
