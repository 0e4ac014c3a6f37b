// Restores views of nodes that the server takes from its cache. It sends nothing for them, so their views are looked up in
// the history of the run that made them: after the page was loaded again, and where a node shows a run with other values.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeAt } from "./graph.mjs";
import { promptOf } from "./runs.mjs";
import { complete } from "./types.mjs";
import { showView, viewWidgetOf } from "./view_widget.mjs";

/** @import { Node, Prompt } from "../../scripts/app.js" */
/** @import { ViewWidget } from "./view_widget.mjs" */
/** @typedef {{prompt?: [number, string, Prompt], outputs?: Record<string, any>}} Run */

const RUNS = 32; // the latest runs, which are searched

/**
 * Show the views of cached nodes that show none, or one of other values.
 * @param {string} current  the run @param {string[]} ids @param {string} entry  of the view, among a node's outputs
 */
export async function restoreViews(current, ids, entry) {
  // The nodes themselves: before the history has come, the user may open another workflow, which has other nodes.
  const wanted = ids.flatMap((id) => {
    const node = nodeAt(app.graph, id);
    const widget = node && viewWidgetOf(node);
    return widget && lacks(node, widget, current, id) ? [{ id, node, widget, before: widget.view }] : [];
  });
  if (!wanted.length) return;
  const graph = app.graphToPrompt(); // now, for the same reason
  const answer = await api.fetchApi(`/history?max_items=${RUNS}`);
  const now = promptOf(current) ?? (await graph).output;
  /** @type {Run[]} */
  const runs = answer.ok ? Object.values(await answer.json()).reverse() : []; // the latest first
  for (const { id, node, widget, before } of wanted) {
    const made = runs.map((run) => viewIn(run, node, now, id, entry)).find(Boolean);
    if (made && widget.view === before) showView(node, complete(made)); // else the run has shown one meanwhile
  }
}

/**
 * Whether a node shows nothing, or what a run with other values made. A patch that shows something is left alone: what it
 * did is told when the sampler runs. So is a view from before the page was loaded.
 * @param {Node} node @param {ViewWidget} widget @param {string} run @param {string} id
 */
function lacks(node, widget, run, id) {
  if (!widget.view) return true;
  const [now, then] = [promptOf(run), promptOf(widget.view.run)];
  return now !== undefined && then !== undefined && !isPatch(node) && !idsLike(now, then, id).length;
}

/**
 * The ids of a prompt's nodes with the same values as a node of another prompt, the same id first.
 * @param {Prompt} now @param {Prompt} then @param {string} id  in `now`
 */
const idsLike = (now, then, id) => [id, ...Object.keys(then)].filter((other) => sameNode(now, then, id, other));

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
    : idsLike(now, then, id);
  return same.map((other) => run.outputs?.[other]?.[entry]?.[0]).find((view) => view?.kind);
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
