// Hides the inputs that the chosen method, mode, rule or schedule does not use. Their values stay and are saved.
// @ts-check
import { app } from "../../scripts/app.js";
import { classOf, everyNode } from "./graph.mjs";
import { REPLACED_BY, USED_WITH } from "./node_facts.mjs";

/** @import { Node } from "../../scripts/app.js" */

const METRIC = "metric";
const REFERENCES = "references";

/** The height of a hidden widget. The frontend adds a gap of 4 px below each widget. @returns {[number, number]} */
const NO_HEIGHT = () => [0, -4];

/** @param {Node} node @param {string} name */
export function isLinked(node, name) {
  const slot = node.findInputSlot(name);
  return slot >= 0 && node.isInputConnected(slot);
}

/**
 * What decides which inputs of a node are used: choices on it, and the metric of the references that it compares with.
 * @param {Node} node @returns {{on: Node, name: string, value: unknown}[]}
 */
function choicesOf(node) {
  const source = madeBy(node);
  return [node, ...(source ? [source] : [])].flatMap((on) => {
    if (classOf(on) === "MG_ReferencesFromLatents") return [{ on, name: METRIC, value: "latent" }];
    const known = (on.widgets ?? []).filter(({ name }) => (on === node ? name in USED_WITH : name === METRIC));
    return known.map(({ name, value }) => ({ on, name, value }));
  });
}

/** The node that made the references which a node compares with, if it is in the graph. @param {Node} node @returns {Node | undefined} */
function madeBy(node) {
  const slot = node.inputs?.length === 1 ? 0 : node.findInputSlot(REFERENCES); // the only one: of a Reroute
  const id = node.inputs?.[slot]?.link;
  const link = id == null ? null : node.graph?.getLink?.(id);
  const from = (link && node.graph?.getNodeById(link.origin_id)) ?? undefined;
  const passes = from && (classOf(from) === "Reroute" || from.findInputSlot(REFERENCES) >= 0);
  return passes ? madeBy(from) : from;
}

/** Update the inputs whenever a choice or a link changes. @param {Node} node */
export function watchInputs(node) {
  for (const choice of (node.widgets ?? []).filter((widget) => widget.name in USED_WITH)) {
    const callback = choice.callback;
    choice.callback = function (...values) {
      const out = callback?.apply(this, values);
      updateAll();
      return out;
    };
  }
  const onConnectionsChange = node.onConnectionsChange;
  node.onConnectionsChange = function (...all) {
    onConnectionsChange?.apply(this, all);
    if (!app.configuringGraph) updateAll();
  };
}

/** A choice may decide about inputs of other nodes, too. */
function updateAll() {
  for (const node of everyNode(app.graph)) if (classOf(node)?.startsWith("MG_")) updateInputs(node);
}

/** For each input that depends on a choice or a link: is it unused now? @param {Node} node */
function unusedInputs(node) {
  const all = Object.values(USED_WITH).flatMap((inputsOf) => Object.values(inputsOf).flat());
  const unused = new Map(all.map((name) => [name, false]));
  for (const { on, name: decider, value } of choicesOf(node)) {
    const inputsOf = USED_WITH[decider];
    const used = inputsOf[String(value)] ?? [];
    const known = !isLinked(on, decider); // a linked choice gets its value at run time: hide nothing for it
    for (const name of Object.values(inputsOf).flat()) {
      unused.set(name, unused.get(name) || (known && !used.includes(name)));
    }
  }
  for (const [link, names] of Object.entries(REPLACED_BY)) {
    if (isLinked(node, link)) for (const name of names) unused.set(name, true);
  }
  return unused;
}

/** Show the inputs that are used now, hide the others, and adapt the node's height. @param {Node} node */
export function updateInputs(node) {
  if (!node.widgets) return;
  const before = node.computeSize()[1];
  let changed = false;
  for (const [name, unused] of unusedInputs(node)) {
    const widget = node.widgets.find((each) => each.name === name);
    const hidden = unused && !isLinked(node, name);
    if (!widget || Boolean(widget.hidden) === hidden) continue;
    widget.hidden = hidden; // the classic renderer does not draw it, but still leaves space for it
    if (hidden) widget.computeSize = NO_HEIGHT;
    else if (widget.computeSize === NO_HEIGHT) delete widget.computeSize;
    widget.options.hidden = hidden; // Nodes 2.0
    changed = true;
  }
  if (!changed) return;
  refreshNodes2(node);
  const least = node.computeSize()[1];
  node.setSize([node.size[0], Math.max(node.size[1] + least - before, least)]);
  node.setDirtyCanvas?.(true, true);
}

/**
 * Nodes 2.0 copies a node's widgets when the node is added, and after the first edit it does not read them again
 * (frontend 1.32). Adding the node to its list once more makes it read them.
 * @param {Node} node
 */
function refreshNodes2(node) {
  if (!globalThis.LiteGraph?.vueNodesMode || app.configuringGraph || !node.graph?.onNodeAdded) return;
  const callbacks = node.widgets?.map((widget) => widget.callback) ?? [];
  node.graph.onNodeAdded(node);
  node.widgets?.forEach((widget, i) => (widget.callback = callbacks[i])); // or the frontend would wrap them twice
}
