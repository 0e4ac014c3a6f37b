// Restores views after the page was loaded again. The server sends nothing for nodes that it takes from its cache, so
// their views are looked up in the history of the run that made them.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeAt } from "./graph.mjs";
import { complete } from "./types.mjs";
import { showView, viewWidgetOf } from "./view_widget.mjs";

/** @import { Node } from "../../scripts/app.js" */
/** @typedef {Record<string, {class_type: string, inputs: Record<string, unknown>}>} Prompt */
/** @typedef {{prompt?: [number, string, Prompt], outputs?: Record<string, any>}} Run */

const RUNS = 32; // the latest runs, which are searched

/**
 * Show the views of cached nodes that show none.
 * @param {string[]} ids @param {string} entry  of the view, among a node's outputs
 */
export async function restoreViews(ids, entry) {
  if (!ids.some(emptyNode)) return;
  const [now, answer] = await Promise.all([app.graphToPrompt(), api.fetchApi(`/history?max_items=${RUNS}`)]);
  /** @type {Run[]} */
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : []; // the latest first
  for (const id of ids) {
    const node = emptyNode(id);
    const viewOf = (/** @type {Run} */ run) => run.outputs?.[id]?.[entry]?.[0];
    const made = node && runs.find((run) => viewOf(run)?.kind && sameRun(node, now.output, run, id));
    if (made) showView(node, complete(viewOf(made)));
  }
}

/** The node with this id, if it can show a view and shows none. @param {string} id */
function emptyNode(id) {
  const node = nodeAt(app.graph, id);
  const widget = node && viewWidgetOf(node);
  return widget && !widget.view ? node : undefined;
}

/** A patch shows what the sampler did with it: then the whole prompt has to be the same. @param {Node} node */
export const isPatch = (node) => node.outputs?.some(({ type }) => type === "MODEL" || type === "GUIDER");

/** @param {Node} node @param {Prompt} now @param {Run} run @param {string} id */
function sameRun(node, now, run, id) {
  const then = run.prompt?.[2];
  if (!then) return false;
  const ids = isPatch(node) ? [...Object.keys(now), ...Object.keys(then)] : [id];
  return ids.every((each) => sameNode(now, then, each));
}

/**
 * Whether a node has the same values in both prompts, and so do all nodes that it depends on.
 * @param {Prompt} a @param {Prompt} b @param {string} id @returns {boolean}
 */
export function sameNode(a, b, id, seen = new Set()) {
  if (seen.has(id)) return true;
  seen.add(id);
  const [one, other] = [a[id], b[id]];
  if (!one || !other || one.class_type !== other.class_type) return false;
  const names = new Set([...Object.keys(one.inputs), ...Object.keys(other.inputs)]);
  return [...names].every((name) => {
    const value = one.inputs[name];
    if (JSON.stringify(value) !== JSON.stringify(other.inputs[name])) return false;
    return !Array.isArray(value) || !(value[0] in a) || sameNode(a, b, value[0], seen);
  });
}
