// The part of a node that shows its last run: warning, headline, curve, nearest images, notes.
// @ts-check
import { passEventsToCanvas } from "./canvas_events.mjs";
import { classOf } from "./graph.mjs";
import { VIEWED } from "./node_facts.mjs";
import { plot } from "./plot.mjs";
import { MARGIN, PLOT, canGrow, hasPlot, heightOf } from "./view_layout.mjs";
import { axisName, element, legend, nearestImages } from "./view_parts.mjs";

/** @import { Node, Widget } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */
/** @typedef {Widget & {view?: View, chosen: number, redraw: () => void}} ViewWidget  `chosen`: the series drawn */

const NAME = "memorization_guard_view";

/** @param {Node} node @returns {ViewWidget | undefined} */
export const viewWidgetOf = (node) =>
  /** @type {ViewWidget | undefined} */ (node.widgets?.find((widget) => widget.name === NAME));

/** Add an empty view to a new node: Nodes 2.0 ignores widgets that are added later. @param {Node} node */
export function addViewWidget(node) {
  if (!VIEWED.has(classOf(node) ?? "")) return;
  const root = element("div", "mg-view");
  /** @type {ViewWidget | undefined} */
  let widget; // undefined while the host makes it, and the host may already ask for its height
  const height = () => (widget?.view ? heightOf(widget.view) + 2 * MARGIN : 0);
  const redraw = () => widget?.view && draw(root, widget, widget.view);
  const made = node.addDOMWidget(NAME, NAME, root, {
    serialize: false, // not in the prompt
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: () => (widget?.view && canGrow(widget.view) ? undefined : height()),
  });
  widget = Object.assign(made, { chosen: 0, redraw });
  widget.serialize = false; // not in the saved workflow
  const observer = new ResizeObserver(redraw);
  observer.observe(root);
  const onRemove = widget.onRemove;
  widget.onRemove = function () {
    observer.disconnect();
    onRemove?.call(this);
  };
  passEventsToCanvas(root);
}

/** Show a view, if the node has a place for it. @param {Node} node @param {View} view */
export function showView(node, view) {
  const widget = viewWidgetOf(node);
  if (!widget) return;
  const before = heightOf(widget.view);
  widget.view = view;
  widget.redraw();
  const least = node.computeSize()[1];
  if (heightOf(view) > before && node.size[1] < least) node.setSize([node.size[0], least]);
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
  const [plotted, frame] = [hasPlot(view), element("div", "mg-plot")];
  const chosen = widget.chosen % Math.max(view.series.length, 1);
  const showNext = () => {
    widget.chosen = chosen + 1;
    widget.redraw();
  };
  const parts = [element("div", "mg-headline", view.headline)];
  if (view.warning) parts.unshift(element("div", "mg-warning", `⚠ ${view.warning}`));
  if (plotted) parts.push(axisName(view, chosen, showNext), frame, legend(view, view.series[chosen]));
  if (view.nearest.length) parts.push(nearestImages(view));
  if (view.notes.length) parts.push(element("div", "mg-notes", view.notes.join("\n")));
  root.style.minHeight = `${heightOf(view)}px`;
  const focused = root.contains(document.activeElement);
  root.replaceChildren(...parts);
  if (focused) root.querySelector("button")?.focus({ preventScroll: true });
  // clientWidth is not scaled by the canvas's zoom; the plot's size is only known once it is in the page.
  if (plotted) frame.append(plot(view, view.series[chosen], frame.clientWidth || 300, frame.clientHeight || PLOT));
}
