// A run out of the cache. The server visits only the nodes that it must and sends nothing of those before them: a page
// that does not show their views yet, since it was loaded again, finds them in the history of the run that made them.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeAt } from "./graph.mjs";
import { nameOf } from "./inputs.mjs";
import { complete } from "./types.mjs";
import { showView, viewWidgetOf } from "./view_widget.mjs";

/** @typedef {import("../../scripts/app.js").Node} Node */
/** @typedef {Record<string, {class_type: string, inputs: Record<string, unknown>}>} Prompt */
/** @typedef {{prompt?: [number, string, Prompt], outputs?: Record<string, any>}} Run */

const RUNS = 32; // that are looked at, the last first
/** What these show is of the sampler behind them. */
const PATCHES = new Set(["MG_AMGGuidance", "MG_DeferredCFG", "MG_DeferredCFGGuider"]);

/**
 * Show the views of cached nodes that show none.
 * @param {string[]} ids @param {string} entry  of the view, among a node's outputs
 */
export async function restoreViews(ids, entry) {
  const empty = ids.filter((id) => {
    const node = nodeAt(app.graph, id);
    const widget = node && viewWidgetOf(node);
    return widget && !widget.view;
  });
  if (!empty.length) return;
  const [now, answer] = await Promise.all([app.graphToPrompt(), api.fetchApi(`/history?max_items=${RUNS}`)]);
  /** @type {Run[]} */
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : [];
  for (const id of empty) {
    const node = nodeAt(app.graph, id);
    if (!node || viewWidgetOf(node)?.view) continue;
    const made = runs.find((run) => run.outputs?.[id]?.[entry]?.[0]?.kind && sameRun(node, now.output, run, id));
    if (made) showView(node, complete(made.outputs?.[id][entry][0]));
  }
}

/** @param {Node} node @param {Prompt} now @param {Run} run @param {string} id */
function sameRun(node, now, run, id) {
  const then = run.prompt?.[2];
  if (!then) return false;
  const ids = PATCHES.has(nameOf(node) ?? "") ? [...Object.keys(now), ...Object.keys(then)] : [id];
  return ids.every((each) => sameNode(now, then, each));
}

/**
 * A node with the same values, and the same nodes before it.
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
