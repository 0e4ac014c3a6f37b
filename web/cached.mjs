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
  // The nodes themselves: before the history has come, the user may open another workflow, which has other nodes.
  const empty = ids.flatMap((id) => {
    const node = emptyNode(id);
    return node ? [{ id, node }] : [];
  });
  if (!empty.length) return;
  const [now, answer] = await Promise.all([app.graphToPrompt(), api.fetchApi(`/history?max_items=${RUNS}`)]);
  /** @type {Run[]} */
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : []; // the latest first
  for (const { id, node } of empty) {
    const made = runs.map((run) => viewIn(run, node, now.output, id, entry)).find(Boolean);
    if (made && !viewWidgetOf(node)?.view) showView(node, complete(made));
  }
}

/**
 * The view that a run showed for a node with the same values, also under another id: the server shares its cache
 * between workflows. A patch shows what the sampler did with it: then the whole prompt has to be the same.
 * @param {Run} run @param {Node} node @param {Prompt} now @param {string} id @param {string} entry
 */
function viewIn(run, node, now, id, entry) {
  const then = run.prompt?.[2] ?? {};
  const [own, all] = [Object.keys(now), Object.keys(then)];
  const same = isPatch(node)
    ? [id].filter(() => own.length === all.length && own.every((each) => sameNode(now, then, each)))
    : [id, ...all].filter((other) => sameNode(now, then, id, other));
  return same.map((other) => run.outputs?.[other]?.[entry]?.[0]).find((view) => view?.kind);
}

/** The node with this id, if it can show a view and shows none. @param {string} id */
function emptyNode(id) {
  const node = nodeAt(app.graph, id);
  const widget = node && viewWidgetOf(node);
  return widget && !widget.view ? node : undefined;
}

/** Whether a node returns a patched model, or a guider with one. @param {Node} node */
export const isPatch = (node) => node.outputs?.some(({ type }) => type === "MODEL" || type === "GUIDER");

/**
 * Whether a node has the same values as one of another prompt, and so do all nodes that the two depend on.
 * @param {Prompt} a @param {Prompt} b @param {string} id @param {string} other  in `b`
 * @returns {boolean}
 */
export function sameNode(a, b, id, other = id, seen = new Set()) {
  const pair = `${id} ${other}`;
  if (seen.has(pair)) return true;
  seen.add(pair);
  const [one, two] = [a[id], b[other]];
  if (!one || !two || one.class_type !== two.class_type) return false;
  const names = new Set([...Object.keys(one.inputs), ...Object.keys(two.inputs)]);
  return [...names].every((name) => {
    const [value, its] = [one.inputs[name], two.inputs[name]];
    if (!isLink(value, a) || !isLink(its, b)) return JSON.stringify(value) === JSON.stringify(its);
    return value[1] === its[1] && sameNode(a, b, value[0], its[0], seen);
  });
}

/** @param {unknown} value @param {Prompt} prompt @returns {value is [string, number]} */
const isLink = (value, prompt) => Array.isArray(value) && value[0] in prompt;
