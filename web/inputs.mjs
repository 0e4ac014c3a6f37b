// Hides the inputs that the chosen method, mode, rule or schedule does not use. Their values stay and are saved.
// @ts-check
import { app } from "../../scripts/app.js";
import { REPLACED_BY, USED_WITH } from "./node_facts.mjs";

/** @import { Node } from "../../scripts/app.js" */

/** The height of a hidden widget. The frontend adds a gap of 4 px below each widget. @returns {[number, number]} */
const NO_HEIGHT = () => [0, -4];

/** The widgets whose value decides which inputs are used. @param {Node} node */
const choicesOf = (node) => (node.widgets ?? []).filter((widget) => widget.name in USED_WITH);

/** @param {Node} node @param {string} name */
export function isLinked(node, name) {
  const slot = node.findInputSlot(name);
  return slot >= 0 && node.isInputConnected(slot);
}

/** Update the inputs whenever a choice or a link changes. @param {Node} node */
export function watchInputs(node) {
  const choices = choicesOf(node);
  if (!choices.length) return;
  for (const choice of choices) {
    const callback = choice.callback;
    choice.callback = function (...values) {
      const out = callback?.apply(this, values);
      updateInputs(node);
      return out;
    };
  }
  const onConnectionsChange = node.onConnectionsChange;
  node.onConnectionsChange = function (...all) {
    onConnectionsChange?.apply(this, all);
    updateInputs(this);
  };
}

/** For each input that depends on a choice or a link: is it unused now? @param {Node} node */
function unusedInputs(node) {
  /** @type {Map<string, boolean>} */
  const unused = new Map();
  for (const choice of choicesOf(node)) {
    const inputsOf = USED_WITH[choice.name];
    const used = inputsOf[String(choice.value)] ?? [];
    const known = !isLinked(node, choice.name); // a linked choice gets its value at run time: hide nothing for it
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
