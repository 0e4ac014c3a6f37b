// Live views, warnings and tidy inputs for the nodes of Memorization Guard.
// The modules beside this file end in .mjs, so that the host loads only this one by itself.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { everyNode, nodeAt, outputKey, outputsByNode } from "./graph.mjs";
import { nameOf, tidyInputs, watchInputs } from "./inputs.mjs";
import { complete } from "./types.mjs";
import { addViewWidget, redrawView, showView } from "./view_widget.mjs";
import { CURVES, SETTINGS, warn } from "./warnings.mjs";

/** @typedef {import("./types.mjs").View} View */
/** @typedef {import("../../scripts/app.js").Node} Node */

/** The name of the event and of the entry among a node's outputs. */
const VIEW = "memorization_guard";

app.registerExtension({
  name: "MemorizationGuard",
  settings: SETTINGS.map((setting) => (setting.id === CURVES ? { ...setting, onChange: redrawAll } : setting)),

  setup() {
    api.addEventListener(`${VIEW}.view`, (event) => {
      const { node: id, view } = /** @type {CustomEvent} */ (event).detail;
      const node = nodeAt(app.graph, String(id));
      if (node && view?.kind) {
        keep(node, view);
        receive(node, view);
      }
    });
  },

  nodeCreated(node) {
    if (!nameOf(node)?.startsWith("MG_")) return;
    addViewWidget(node);
    watchInputs(node);
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      const view = output?.[VIEW]?.[0];
      if (view?.kind) receive(this, view);
    };
    queueMicrotask(() => tidyInputs(node)); // when all of its inputs are there
  },

  loadedGraphNode(node) {
    tidyInputs(node);
  },

  /** Outputs that the host restores: another workflow tab, a run of the queue's history. */
  onNodeOutputsUpdated(outputs) {
    for (const [node, output] of outputsByNode(app.graph, outputs)) {
      const view = output?.[VIEW]?.[0];
      if (view?.kind) showView(node, complete(view));
    }
  },
});

/**
 * A view from a run that is going on now.
 * @param {Node} node @param {Partial<View>} given
 */
function receive(node, given) {
  const view = complete(given);
  showView(node, view);
  if (view.done && view.warning) warn(node, view);
}

/**
 * A model patch had ended before there was anything to see: what it sees later becomes its output, so that
 * another workflow's tab does not lose it.
 * @param {Node} node @param {Partial<View>} view
 */
function keep(node, view) {
  const output = app.nodeOutputs?.[outputKey(node)];
  if (output?.[VIEW]) output[VIEW] = [view];
}

/** The setting has changed. */
function redrawAll() {
  for (const node of everyNode(app.graph)) redrawView(node);
}
