// Dims a view that is not of the run that ended last, and says why: bypassed, muted, an error, cancelled.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isPatch } from "./cached.mjs";
import { everyNode, nodeAt } from "./graph.mjs";
import { markStale, viewWidgetOf } from "./view_widget.mjs";

/** @import { Node } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */

/** The frontend's modes of a node that does not run. @type {Record<number, string>} */
const MODES = { 2: "Muted: this is from an earlier run.", 4: "Bypassed: this is from an earlier run." };
const ERROR = "The run stopped with an error. This is not its result.";
const INTERRUPTED = "The run was cancelled. This is not its result.";

/** Why a view is not of the run that ended last, for those that are not. @type {WeakMap<View, string>} */
const reasons = new WeakMap();

/** Look at every view again when a run ends or the user does something. */
export function watchRuns() {
  /** @type {string[]} */
  let cached = [];
  /** @param {string} type @param {(detail: any) => void} act */
  const on = (type, act) => api.addEventListener(type, (event) => act(/** @type {CustomEvent} */ (event).detail ?? {}));
  on("execution_start", () => (cached = []));
  on("execution_cached", ({ nodes = [] }) => (cached = nodes));
  on("execution_success", ({ prompt_id: run }) => judge(run, "", cached));
  on("execution_error", ({ prompt_id: run }) => judge(run, ERROR, cached));
  on("execution_interrupted", ({ prompt_id: run }) => judge(run, INTERRUPTED, cached));
  // No event tells in every frontend that a node was bypassed. The user does it by a key or a click.
  const look = () => setTimeout(() => everyNode(app.graph).forEach(dim), 100);
  for (const event of ["keyup", "click"]) document.addEventListener(event, look, { capture: true, passive: true });
}

/** @param {string} run @param {string} reason  why it ended early, or "" @param {string[]} cached  ids of nodes */
function judge(run, reason, cached) {
  // A patch that was cached shows what a sampler did with it, which may have been in an earlier run.
  const known = new Set(cached.map((id) => nodeAt(app.graph, id)).filter((node) => node && !isPatch(node)));
  for (const node of everyNode(app.graph)) {
    const view = viewWidgetOf(node)?.view;
    if (!view) continue;
    const current = !reason || (view.done && (known.has(node) || view.run === run));
    if (current) reasons.delete(view);
    else reasons.set(view, reason);
    dim(node);
  }
}

/** @param {Node} node */
function dim(node) {
  const view = viewWidgetOf(node)?.view;
  if (view) markStale(node, MODES[node.mode ?? 0] ?? reasons.get(view) ?? "");
}
