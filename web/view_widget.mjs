// The part of a node that shows its last run: headline, warning, curve, nearest pictures.
// @ts-check
import { app } from "../../scripts/app.js";
import { nameOf } from "./inputs.mjs";
import { ACTION, measured, plot } from "./plot.mjs";
import { CURVES, setting } from "./warnings.mjs";

/** @typedef {import("./types.mjs").View} View */
/** @typedef {import("./types.mjs").Series} Series */
/** @typedef {import("../../scripts/app.js").Node} Node */
/**
 * The host's widget, and what is ours of it.
 * @typedef {import("../../scripts/app.js").Widget & {view?: View, chosen: number, redraw: () => void}} ViewWidget
 */

const NAME = "memorization_guard_view";
const VIEWED = new Set([
  "MG_NoiseOptimizer",
  "MG_BasinEscapeDetector",
  "MG_DeferredCFGKSampler",
  "MG_DeferredCFGGuider",
  "MG_DeferredCFG",
  "MG_AMGGuidance",
  "MG_CopyCheck",
  "MG_Calibrate",
  "MG_ReferencesFromFolder",
  "MG_ReferencesFromImages",
  "MG_ReferencesFromLatents",
  "MG_SaveReferences",
  "MG_LoadReferences",
]);
const PLOT = 130; // px at least
const LINE = 16;
const LETTERS = 42; // in a line of a node as wide as the host makes them
const NOTES = 4; // lines of notes under a curve; all of them can be scrolled to
const PICTURES = 58;
const MARGIN = 4; // between the node's edge and the view

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
.mg-view { display: flex; flex-direction: column; gap: 4px; width: 100%; height: 100%; box-sizing: border-box;
  overflow: hidden; padding: 2px 6px; font: 11px/16px sans-serif; color: var(--input-text, #ddd); user-select: text; }
.mg-view .mg-warning { background: #b4530933; border-left: 3px solid #f59e0b; padding: 2px 6px; border-radius: 3px; }
.mg-view .mg-notes { color: var(--descrip-text, #999); white-space: pre-wrap; overflow-wrap: anywhere;
  overflow-y: auto; flex: 1 1 0; }
.mg-view .mg-plot ~ .mg-notes { flex: none; max-height: ${NOTES * LINE}px; }
.mg-view .mg-plot { flex: 1 1 ${PLOT}px; min-height: ${PLOT}px; overflow: hidden; }
.mg-view svg { width: 100%; height: 100%; display: block; }
.mg-view svg text { fill: var(--descrip-text, #999); font-size: 10px; }
.mg-view .mg-name { color: var(--descrip-text, #999); font-size: 10px; text-align: right; }
.mg-view button.mg-name { background: none; border: 0; padding: 0; cursor: pointer; align-self: flex-end; }
.mg-view .mg-grid { stroke: var(--border-color, #555); stroke-width: 0.5; }
.mg-view .mg-unguided { fill: #7aa2d6; }
.mg-view .mg-limit { fill: none; stroke: var(--input-text, #ddd); stroke-dasharray: 4 3; opacity: 0.8; }
.mg-view .mg-line .mg-gap { stroke-dasharray: 1 3; }
.mg-view .mg-line polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round; }
.mg-view .mg-line:hover polyline { stroke-width: 3; }
.mg-view .mg-legend { display: flex; flex-wrap: wrap; gap: 0 10px; min-height: 16px; color: var(--descrip-text, #999); }
.mg-view .mg-legend i { display: inline-block; width: 10px; height: 8px; margin-right: 4px; border-radius: 2px; }
.mg-view .mg-nearest { display: flex; gap: 6px; overflow-x: auto; min-height: ${PICTURES - 8}px; }
.mg-view figure { margin: 0; text-align: center; flex: none; }
.mg-view figure img { height: 34px; border-radius: 3px; display: block; margin: auto; }
`);
document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];

/** @param {Node} node @returns {ViewWidget | undefined} */
export const viewWidgetOf = (node) =>
  /** @type {ViewWidget | undefined} */ (node.widgets?.find((w) => w.name === NAME));

/**
 * @param {string} name @param {string} [text]
 * @returns {HTMLElement}
 */
function box(name, text = "") {
  const element = document.createElement("div");
  element.className = name;
  element.textContent = text;
  return element;
}

/** Show a view on its node, if it is one that shows views. @param {Node} node @param {View} view */
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

/** Draw again what is shown, and give back the room that is not needed any more. @param {Node} node */
export function redrawView(node) {
  const widget = viewWidgetOf(node);
  if (!widget?.view) return;
  widget.redraw();
  node.setSize([node.size[0], node.computeSize()[1]]);
  node.setDirtyCanvas?.(true, true);
}

/** @param {string} text */
const linesOf = (text) => Math.ceil(text.length / LETTERS);

/** What a view needs, in pixels. @param {View | undefined} view */
function heightOf(view) {
  if (!view) return 0;
  const drawn = hasPlot(view) ? PLOT + 2 * LINE + 8 : 0;
  const wanted = view.notes.reduce((sum, note) => sum + linesOf(note), 0);
  const notes = Math.min(wanted, hasPlot(view) ? NOTES : 2 * NOTES);
  const said = LINE * (Math.max(2, linesOf(view.headline)) + notes) + (view.warning ? 2 * LINE + 8 : 0);
  return drawn + said + (view.nearest.length ? PICTURES : 0) + 8;
}

/** @param {View} view */
const hasPlot = (view) => setting(CURVES) && view.steps > 0 && view.series.length > 0 && hasContent(view);

/** @param {View} view */
const hasContent = (view) => view.begins.some((begin) => begin > 0) || view.series.some(measured);

/** An empty view; Nodes 2.0 takes no widget that comes later. @param {Node} node */
export function addViewWidget(node) {
  if (!VIEWED.has(nameOf(node) ?? "")) return;
  const root = box("mg-view");
  /** @type {ViewWidget | undefined} */
  let widget; // the host may ask for its height while it makes it
  const height = () => (widget?.view ? heightOf(widget.view) + 2 * MARGIN : 0);
  const redraw = () => widget && draw(root, widget);
  const made = node.addDOMWidget(NAME, NAME, root, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: () => (widget?.view && (hasPlot(widget.view) || widget.view.notes.length) ? undefined : height()),
  });
  widget = Object.assign(made, { chosen: 0, redraw });
  widget.serialize = false; // not in the saved workflow either
  const seen = new ResizeObserver(redraw);
  seen.observe(root);
  const onRemove = widget.onRemove;
  widget.onRemove = function () {
    seen.disconnect();
    onRemove?.call(this);
  };
  letTheCanvasMove(root);
}

/**
 * The middle button and the wheel belong to the canvas, as on the host's own text fields; Nodes 2.0 sees to that itself.
 * @param {HTMLElement} root
 */
function letTheCanvasMove(root) {
  root.addEventListener("pointerdown", (event) => {
    if (event.button === 1 && !globalThis.LiteGraph?.vueNodesMode) app.canvas?.processMouseDown?.(event);
  });
  root.addEventListener(
    "wheel",
    (event) => {
      if (globalThis.LiteGraph?.vueNodesMode || scrolls(event)) return;
      event.preventDefault();
      app.canvas?.processMouseWheel?.(event);
    },
    { passive: false },
  );
}

/** The notes, where they are longer than their place. @param {WheelEvent} event */
function scrolls(event) {
  const notes = /** @type {Element} */ (event.target).closest(".mg-notes");
  return !event.ctrlKey && notes !== null && notes.scrollHeight > notes.clientHeight;
}

/** @param {HTMLElement} root @param {ViewWidget} widget */
function draw(root, widget) {
  const view = widget.view;
  if (!view) return;
  const series = view.series[widget.chosen % Math.max(view.series.length, 1)];
  root.style.minHeight = `${heightOf(view)}px`;
  const parts = [box("mg-headline", view.headline)];
  if (view.warning) parts.unshift(box("mg-warning", `⚠ ${view.warning}`));
  if (hasPlot(view)) parts.push(nameOfAxis(widget, view, series), box("mg-plot"), legend(view, series));
  if (view.nearest.length) parts.push(pictures(view));
  if (view.notes.length) parts.push(box("mg-notes", view.notes.join("\n")));
  const focused = root.contains(document.activeElement);
  root.replaceChildren(...parts);
  if (focused) root.querySelector("button")?.focus({ preventScroll: true });
  const frame = root.querySelector(".mg-plot");
  // Its own pixels, not those of the zoomed screen.
  if (frame) frame.append(plot(view, series, frame.clientWidth || 300, frame.clientHeight || PLOT));
}

/**
 * The name of what is drawn; a click draws the next series.
 * @param {ViewWidget} widget @param {View} view @param {Series} series
 */
function nameOfAxis(widget, view, series) {
  if (view.series.length === 1 || !measured(series)) return box("mg-name", measured(series) ? series.y : "");
  const name = document.createElement("button");
  name.className = "mg-name";
  name.textContent = `⇄ ${series.y}`;
  name.title = `Show ${view.series[(widget.chosen + 1) % view.series.length].y}`;
  name.addEventListener("click", () => {
    widget.chosen = (widget.chosen + 1) % view.series.length;
    widget.redraw();
  });
  return name;
}

/** What the colours mean. @param {View} view @param {Series} series */
function legend(view, series) {
  const entries = Object.entries(view.acted)
    .filter(([, rows]) => rows.some((row) => row.some((a) => a > 0)))
    .map(([name]) => /** @type {[string, string]} */ ([name, ACTION[name] ?? "currentColor"]));
  if (view.begins.some((begin) => begin > 0)) entries.push(["without CFG", "#7aa2d699"]);
  if (series.limit.length && measured(series)) entries.push([`- - ${series.limit_name}`, ""]);
  const line = box("mg-legend");
  for (const [name, fill] of entries) {
    const entry = document.createElement("span");
    if (fill) {
      const patch = document.createElement("i");
      patch.style.background = fill;
      entry.append(patch);
    }
    entry.append(name);
    line.append(entry);
  }
  return line;
}

/** The nearest references. @param {View} view */
function pictures(view) {
  const row = box("mg-nearest");
  for (const near of view.nearest) {
    const figure = document.createElement("figure");
    if (near.picture.startsWith("data:image/")) {
      const image = document.createElement("img");
      image.src = near.picture;
      image.alt = near.name;
      figure.append(image);
    }
    const caption = document.createElement("figcaption");
    caption.textContent = near.closeness === null ? "" : near.closeness.toFixed(2);
    figure.title = near.name;
    figure.append(caption);
    row.append(figure);
  }
  return row;
}
