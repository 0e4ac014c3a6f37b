// Live views, warnings and tidy inputs for the nodes of Memorization Guard.
// The modules beside this file end in .mjs, so that the host loads only this one by itself.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { nodeAt, outputsByNode } from "./graph.mjs";
import { nameOf, tidyInputs, watchInputs } from "./inputs.mjs";
import { SETTINGS, warn } from "./warnings.mjs";
import { addViewWidget, showView } from "./view_widget.mjs";

/** @typedef {import("./types.mjs").View} View */

/** The name of the event and of the entry among a node's outputs. */
const VIEW = "memorization_guard";

app.registerExtension({
  name: "MemorizationGuard",
  settings: SETTINGS,

  setup() {
    api.addEventListener(`${VIEW}.view`, (/** @type {CustomEvent} */ event) => {
      const node = nodeAt(app.graph, String(event.detail.node));
      if (node) receive(node, event.detail.view);
    });
  },

  /** @param {any} node */
  nodeCreated(node) {
    if (!nameOf(node)?.startsWith("MG_")) return;
    addViewWidget(node);
    watchInputs(node);
    const onExecuted = node.onExecuted;
    node.onExecuted = function (/** @type {any} */ output) {
      onExecuted?.apply(this, arguments);
      const view = output?.[VIEW]?.[0];
      if (view?.kind) receive(this, view);
    };
    queueMicrotask(() => tidyInputs(node)); // when all of its inputs are there
  },

  /** @param {any} node */
  loadedGraphNode(node) {
    tidyInputs(node);
  },

  /** Outputs that the host restores: another workflow tab, a run of the queue's history. */
  onNodeOutputsUpdated(/** @type {Record<string, any>} */ outputs) {
    for (const [node, output] of outputsByNode(app.graph, outputs)) {
      const view = output?.[VIEW]?.[0];
      if (view?.kind) showView(node, view);
    }
  },
});

/**
 * A view from a run that is going on now.
 * @param {any} node @param {View} view
 */
function receive(node, view) {
  showView(node, view);
  if (view.done && view.warning) warn(node, view);
}
