// The button of Calibrate Thresholds that writes its values into the graph.
// @ts-check
import { app } from "../../scripts/app.js";
import { classOf, everyNode } from "./graph.mjs";
import { isLinked } from "./inputs.mjs";
import { planned, told } from "./suggested.mjs";
import { viewWidgetOf } from "./view_widget.mjs";
import { message } from "./warnings.mjs";

/** @import { Graph, Node } from "../../scripts/app.js" */

const LABEL = "Apply to graph";

/** @param {Node} node */
export function addApplyButton(node) {
  if (classOf(node) !== "MG_Calibrate") return;
  const button = node.addWidget("button", LABEL, null, () => apply(node));
  button.serialize = false; // not in the saved workflow
  button.options.serialize = false; // not in the prompt
}

/** @param {Node} node */
const isOurs = (node) => Boolean(classOf(node)?.startsWith("MG_"));

/** A node of the pack, or a subgraph with one inside: such a node may show inputs of those inside. @param {Node} node */
const concerns = (node) => isOurs(node) || hasOurs(node.subgraph);

/** @param {Graph | undefined} graph @returns {boolean} */
const hasOurs = (graph) => graph?.nodes?.some(concerns) ?? false;

/** Write the values of a node's last run into the graph, in one step to undo, and say so. @param {Node} node */
function apply(node) {
  const values = viewWidgetOf(node)?.view?.suggested ?? {};
  if (!Object.keys(values).length) return message("info", node.title, "Run this node first: it has no values yet.");
  const plan = planned(everyNode(app.graph).filter(concerns), values, isLinked);
  app.canvas?.emitBeforeChange?.();
  try {
    for (const { node: changed, widget, value } of plan.changes) {
      widget.value = value;
      widget.callback?.(value, app.canvas, changed);
      widget.value = value; // the callback of frontend 1.32 rounds to the widget's steps, which are too coarse
    }
  } finally {
    app.canvas?.emitAfterChange?.();
  }
  node.setDirtyCanvas?.(true, true);
  const text = told(plan) || "No node of this graph has an input for these values.";
  message(plan.changes.length ? "success" : "info", node.title, text);
}
