// How much space a view needs. Sizes are pixels of the graph, at a zoom of 1.
// @ts-check
import { measured } from "./plot.mjs";
import { CURVES, setting } from "./warnings.mjs";

/** @import { View } from "./types.mjs" */

export const LINE = 16;
export const PLOT = 130; // the least height of a plot
export const NEAREST = 50; // the row of nearest images
export const NOTES = 4; // lines of notes below a plot; the rest can be scrolled to
export const MARGIN = 4; // between the node's edge and the view
const GAP = 8;
const LETTERS = 42; // in a line, on a node of the width that the frontend gives it

/** @param {View} view */
export const hasPlot = (view) =>
  setting(CURVES) &&
  view.steps > 0 &&
  view.series.length > 0 &&
  (view.begins.some((begin) => begin > 0) || view.series.some(measured));

/** @param {string} text */
const linesOf = (text) => Math.ceil(text.length / LETTERS);

/** @param {View | undefined} view @param {string} [stale]  a line that says why it is dimmed */
export function heightOf(view, stale = "") {
  if (!view) return 0;
  const plot = hasPlot(view) ? PLOT + 2 * LINE + GAP : 0;
  const notes = view.notes.reduce((sum, note) => sum + linesOf(note), 0);
  const lines = Math.max(2, linesOf(view.headline)) + Math.min(notes, plot ? NOTES : 2 * NOTES);
  const warning = view.warning ? LINE * Math.max(2, linesOf(view.warning) + 1) + GAP : 0;
  const words = view.words.length ? LINE * (linesOf(view.words.map((word) => word.text).join("")) + 1) + GAP : 0;
  const nearest = view.nearest.length ? NEAREST + GAP : 0;
  return warning + LINE * (lines + linesOf(stale)) + plot + words + nearest + GAP;
}

/** Whether a view can use more height than it needs. @param {View} view */
export const canGrow = (view) => hasPlot(view) || view.notes.length > 0;
