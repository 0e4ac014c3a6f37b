// The part of a node that shows its last run: warning, headline, curve, nearest images, notes.
// @ts-check
import { passEventsToCanvas } from "./canvas_events.mjs";
import { classOf } from "./graph.mjs";
import { VIEWED } from "./node_facts.mjs";
import { plot } from "./plot.mjs";
import { updateChildren } from "./update.mjs";
import { MARGIN, PLOT, canGrow, hasPlot, heightOf } from "./view_layout.mjs";
import { axisName, element, legend, nearestImages, notesOf, quoted, wordsOf } from "./view_parts.mjs";

/** @import { Node, Widget } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */
/** @typedef {Widget & {view?: View, stale: string, chosen: number, across: () => number, redraw: () => void}} ViewWidget */
// `stale`: why the view is not of the last run, or ""; `chosen`: the series that is drawn; `across`: pixels of a line
// (not `width`, by which the host would set the view's own)

const NAME = "memorization_guard_view";

/** @param {Node} node @returns {ViewWidget | undefined} */
export const viewWidgetOf = (node) =>
  /** @type {ViewWidget | undefined} */ (node.widgets?.find((widget) => widget.name === NAME));

/** Add an empty view to a new node: Nodes 2.0 ignores widgets that are added later. @param {Node} node */
export function addViewWidget(node) {
  if (VIEWED.has(classOf(node) ?? "")) addView(node, NAME);
}

/** @param {Node} node @param {string} name  of the widget @returns {ViewWidget} */
export function addView(node, name) {
  const root = element("div", "mg-view");
  /** @type {ViewWidget | undefined} */
  let widget; // undefined while the host makes it, and the host may already ask for its height
  const across = () => node.size[0] - 4 * MARGIN;
  const height = () => (widget?.view ? heightOf(widget.view, widget.stale, across()) + 2 * MARGIN : 0);
  const redraw = () => widget?.view && draw(root, widget, widget.view);
  const made = node.addDOMWidget(name, name, root, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: () => (widget?.view && canGrow(widget.view, across()) ? undefined : height()),
  });
  widget = Object.assign(made, { stale: "", chosen: 0, across, redraw });
  widget.serialize = false; // not in the saved workflow
  const observer = new ResizeObserver(redraw);
  observer.observe(root);
  const onRemove = widget.onRemove;
  widget.onRemove = function () {
    observer.disconnect();
    onRemove?.call(this);
  };
  root.addEventListener("click", (event) => {
    if (!widget || !(/** @type {Element} */ (event.target).closest("button"))) return;
    widget.chosen += 1; // the button shows the next series
    redraw();
  });
  passEventsToCanvas(root);
  return widget;
}

/** Show a view, if the node has a place for it. @param {Node} node @param {View} view */
export function showView(node, view) {
  const widget = viewWidgetOf(node);
  if (widget) change(node, widget, view, "");
}

/** Dim the node's view and say why, or show it as usual. @param {Node} node @param {string} reason  or "" */
export function markStale(node, reason) {
  const widget = viewWidgetOf(node);
  if (widget?.view && widget.stale !== reason) change(node, widget, widget.view, reason);
}

/** @param {Node} node @param {ViewWidget} widget @param {View} view @param {string} stale */
export function change(node, widget, view, stale) {
  const before = heightOf(widget.view, widget.stale, widget.across());
  [widget.view, widget.stale] = [view, stale];
  widget.redraw();
  const least = node.computeSize()[1];
  if (heightOf(view, stale, widget.across()) > before && node.size[1] < least) node.setSize([node.size[0], least]);
  node.setDirtyCanvas?.(true, false);
}

/** Draw a view again and fit the node's height to it, after a setting has changed. @param {Node} node */
export function redrawView(node) {
  const widget = viewWidgetOf(node);
  if (!widget?.view) return;
  widget.redraw();
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas?.(true, true);
}

/** @param {HTMLElement} root @param {ViewWidget} widget @param {View} view */
function draw(root, widget, view) {
  const chosen = widget.chosen % Math.max(view.series.length, 1);
  const before = sizeOfPlot(root);
  root.style.minHeight = `${heightOf(view, widget.stale, widget.across())}px`;
  root.classList.toggle("mg-dimmed", Boolean(widget.stale));
  const parts = (/** @type {number[]} */ size) => partsOf(view, chosen, size, widget.stale);
  updateChildren(root, parts(before));
  const now = sizeOfPlot(root); // known only once the parts are in the page
  if (now.some((side, i) => side !== before[i])) updateChildren(root, parts(now));
}

/** Width and height in the graph's pixels: client sizes are not scaled by the canvas's zoom. @param {HTMLElement} root */
function sizeOfPlot(root) {
  const frame = root.querySelector(".mg-plot");
  return [frame?.clientWidth || 300, frame?.clientHeight || PLOT];
}

/** @param {View} view @param {number} chosen @param {number[]} size  of the plot @param {string} stale */
function partsOf(view, chosen, [width, height], stale) {
  const parts = [element("div", "mg-headline", quoted(view.headline))];
  if (stale) parts.unshift(element("div", "mg-stale", stale));
  if (view.warning) parts.unshift(element("div", "mg-warning", `⚠ ${quoted(view.warning)}`));
  if (view.words.length) parts.push(wordsOf(view));
  if (hasPlot(view)) {
    const frame = element("div", "mg-plot");
    frame.append(plot(view, view.series[chosen], width, height));
    parts.push(axisName(view, chosen), frame, legend(view, view.series[chosen]));
  }
  if (view.nearest.length) parts.push(nearestImages(view));
  if (view.notes.length) parts.push(notesOf(view));
  return parts;
}
