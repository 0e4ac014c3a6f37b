// "Replace with Deferred-CFG KSampler", for a KSampler: values, links, place and colour stay. It is in the node's menu, and
// in Nodes 2.0 also in the bar above the selected node: frontend 1.32 shows no entries of extensions in its menu there.
// @ts-check
import { app } from "../../scripts/app.js";
import { classOf } from "./graph.mjs";

/** @import { Command, Graph, Link, MenuItem, Node } from "../../scripts/app.js" */

const LABEL = "Replace with Deferred-CFG KSampler"; // as in locales/en/main.json
const REPLACED = "KSampler";
const OURS = "MG_DeferredCFGKSampler";
const WIDTH = 340; // so that Nodes 2.0 does not cut its inputs' names

/** @param {Node} node */
const canReplace = (node) => classOf(node) === REPLACED;

/** @type {Command} */
export const COMMAND = {
  id: "MemorizationGuard.ReplaceKSampler",
  label: LABEL,
  icon: "pi pi-shield",
  function: () => [...(app.canvas?.selectedItems ?? [])].filter(canReplace).forEach(replace),
};

/** @param {Node} node @returns {MenuItem[]} */
export const menuItems = (node) => (canReplace(node) ? [{ content: LABEL, callback: () => replace(node) }] : []);

/** What is offered in the bar above a selected node. @param {Node} node @returns {string[]} */
export const barItems = (node) => (globalThis.LiteGraph?.vueNodesMode && canReplace(node) ? [COMMAND.id] : []);

/** In one step to undo. @param {Node} node */
function replace(node) {
  const { graph } = node;
  const made = globalThis.LiteGraph?.createNode?.(OURS);
  if (!graph || !made) return;
  app.canvas?.emitBeforeChange?.();
  try {
    copyLook(node, made);
    copyValues(node, made); // before it is in the graph: Nodes 2.0 reads the values then
    graph.add(made);
    made.setSize([Math.max(node.size[0], made.size[0], WIDTH), made.computeSize()[1]]);
    copyLinks(node, made, graph);
    graph.remove(node);
    app.canvas?.selectItems?.([made]);
  } finally {
    app.canvas?.emitAfterChange?.();
  }
}

/** @param {Node} node @param {Node} made */
function copyLook(node, made) {
  made.pos = [node.pos[0], node.pos[1]];
  made.mode = node.mode;
  if (node.color) made.color = node.color;
  if (node.bgcolor) made.bgcolor = node.bgcolor;
  if (node.title !== node.constructor.title) made.title = node.title;
}

/** @param {Node} node @param {Node} made */
function copyValues(node, made) {
  for (const { name, value } of node.widgets ?? []) {
    const widget = made.widgets?.find((each) => each.name === name);
    if (widget) widget.value = value;
  }
}

/** @param {Node} node @param {Node} made @param {Graph} graph */
function copyLinks(node, made, graph) {
  for (const input of node.inputs ?? []) {
    const link = linkOf(graph, input.link);
    const slot = made.findInputSlot(input.name);
    if (!link || slot < 0) continue;
    const source = graph.getNodeById(link.origin_id);
    if (source) source.connect(link.origin_slot, made, slot, link.parentId);
    else graph.inputs?.[link.origin_slot]?.connect(made.inputs?.[slot], made, link.parentId); // the subgraph's own input
  }
  for (const id of [...(node.outputs?.[0]?.links ?? [])]) {
    const link = linkOf(graph, id);
    if (!link) continue;
    const target = graph.getNodeById(link.target_id);
    if (target) made.connect(0, target, link.target_slot, link.parentId);
    else graph.outputs?.[link.target_slot]?.connect(made.outputs?.[0], made, link.parentId);
  }
}

/** @param {Graph} graph @param {number | null | undefined} id @returns {Link | undefined} */
const linkOf = (graph, id) => (id === null || id === undefined ? undefined : (graph.getLink?.(id) ?? undefined));
