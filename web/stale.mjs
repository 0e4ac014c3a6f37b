// Dims a view that is not of the run that ended last, and says why: bypassed, muted, an error, cancelled.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isPatch } from "./cached.mjs";
import { everyNode, nodeAt, outputKey } from "./graph.mjs";
import { shownWorkflow, workflowOf } from "./runs.mjs";
import { markStale, viewWidgetOf } from "./view_widget.mjs";

/** @import { Node, Workflow } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */

/** The frontend's modes of a node that does not run. @type {Record<number, string>} */
const MODES = { 2: "Muted: this is from an earlier run.", 4: "Bypassed: this is from an earlier run." };
const ERROR = "The run stopped with an error. This is not its result.";
const INTERRUPTED = "The run was cancelled. This is not its result.";

/**
 * How a run ended.
 * @typedef {object} End
 * @property {string} run
 * @property {string} reason  why it ended early, or ""
 * @property {string[]} cached  ids of nodes
 */

/**
 * Why views are not of their workflow's last run, by `keyOf`. Not by the views themselves: the host makes nodes anew, and we
 * their views, when the user opens a tab or takes a change back. @type {WeakMap<Workflow, Map<string, string>>}
 */
const reasons = new WeakMap();

/** The runs that ended while another workflow's tab was open. @type {WeakMap<Workflow, End[]>} */
const unseen = new WeakMap();

/** Look at every view again when a run ends or the user does something. */
export function watchRuns() {
  /** @type {string[]} */
  let cached = [];
  /** @param {string} type @param {(detail: any) => void} act */
  const on = (type, act) => api.addEventListener(type, (event) => act(/** @type {CustomEvent} */ (event).detail ?? {}));
  on("execution_start", () => (cached = []));
  on("execution_cached", ({ nodes = [] }) => (cached = nodes));
  on("execution_success", ({ prompt_id: run }) => ended({ run, reason: "", cached }));
  on("execution_error", ({ prompt_id: run }) => ended({ run, reason: ERROR, cached }));
  on("execution_interrupted", ({ prompt_id: run }) => ended({ run, reason: INTERRUPTED, cached }));
  // No event tells in every frontend that a node was bypassed. The user does it by a key or a click.
  const look = () => setTimeout(() => everyNode(app.graph).forEach(dim), 100);
  for (const event of ["keyup", "click"]) document.addEventListener(event, look, { capture: true, passive: true });
}

/** Judge the views of the run's own workflow, at the latest when the user opens its tab again. @param {End} end */
function ended(end) {
  const workflow = workflowOf(end.run);
  if (workflow === shownWorkflow()) judge(end);
  else if (workflow) unseen.set(workflow, [...(unseen.get(workflow) ?? []), end]);
}

/** Dim what has to be, after the host has made the nodes anew. */
export function judgeAgain() {
  const workflow = shownWorkflow();
  for (const end of unseen.get(workflow) ?? []) judge(end);
  unseen.delete(workflow);
  everyNode(app.graph).forEach(dim);
}

/** @param {End} end */
function judge({ run, reason, cached }) {
  const why = reasons.get(shownWorkflow()) ?? new Map();
  reasons.set(shownWorkflow(), why);
  // A patch that was cached shows what a sampler did with it. If a run ended early, that may have been in an earlier one.
  const known = new Set(cached.map((id) => nodeAt(app.graph, id)).filter((node) => node && !(reason && isPatch(node))));
  for (const node of everyNode(app.graph)) {
    const view = viewWidgetOf(node)?.view;
    if (!view) continue;
    if (view.done && (known.has(node) || view.run === run)) why.delete(keyOf(node, view));
    else if (reason) why.set(keyOf(node, view), reason); // a run that ended well may have left this node out
    dim(node);
  }
}

/** @param {Node} node @param {View} view */
const keyOf = (node, view) => `${view.run} ${outputKey(node)}`;

/** @param {Node} node */
function dim(node) {
  const view = viewWidgetOf(node)?.view;
  if (view) markStale(node, MODES[node.mode ?? 0] ?? reasons.get(shownWorkflow())?.get(keyOf(node, view)) ?? "");
}
