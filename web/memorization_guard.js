// The page's part of Memorization Guard: views, warnings, unused inputs, a button and a menu entry.
// The host loads every .js file here as an extension, so all other modules end in .mjs.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addApplyButton } from "./apply.mjs";
import { restoreViews } from "./cached.mjs";
import { classOf, everyNode, nodeAt, outputKey, outputsByNode } from "./graph.mjs";
import { updateInputs, watchInputs } from "./inputs.mjs";
import { showOutside } from "./outside.mjs";
import { COMMAND, barItems, menuItems } from "./replace.mjs";
import { watchRuns } from "./stale.mjs";
import { complete } from "./types.mjs";
import { addStyle } from "./view_style.mjs";
import { addViewWidget, redrawView, showView } from "./view_widget.mjs";
import { CURVES, SETTINGS, warn } from "./warnings.mjs";

/** @import { Node } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */

/** The first part of the event's name, and the key of the view among a node's outputs. */
const VIEW = "memorization_guard";

app.registerExtension({
  name: "MemorizationGuard",
  settings: SETTINGS.map((setting) => (setting.id === CURVES ? { ...setting, onChange } : setting)),

  setup() {
    addStyle();
    watchRuns();
    api.addEventListener(`${VIEW}.view`, (event) => {
      const { node: id, view } = /** @type {CustomEvent} */ (event).detail;
      const node = nodeAt(app.graph, String(id));
      if (!node || !view?.kind) return;
      keep(node, view);
      showOutside(node, String(id), complete(view));
      receive(node, view);
    });
    api.addEventListener("execution_cached", (event) => {
      restoreViews(/** @type {CustomEvent} */ (event).detail.nodes ?? [], VIEW);
    });
  },

  nodeCreated(node) {
    if (!classOf(node)?.startsWith("MG_")) return;
    addApplyButton(node);
    addViewWidget(node);
    watchInputs(node);
    const onExecuted = node.onExecuted;
    node.onExecuted = function (output, ...rest) {
      onExecuted?.call(this, output, ...rest);
      const view = output?.[VIEW]?.[0];
      if (view?.kind) receive(this, view);
    };
    queueMicrotask(() => updateInputs(node)); // the host adds some inputs after this call
  },

  commands: [COMMAND],
  getNodeMenuItems: menuItems,
  getSelectionToolboxCommands: barItems,

  loadedGraphNode(node) {
    if (classOf(node)?.startsWith("MG_")) updateInputs(node);
  },

  /** The host restores outputs when the user opens another workflow's tab, or a run of the queue's history. */
  onNodeOutputsUpdated(outputs) {
    for (const [node, output] of outputsByNode(app.graph, outputs)) {
      const view = output?.[VIEW]?.[0];
      if (view?.kind) showView(node, complete(view));
    }
  },
});

/** Show a view of the current run. @param {Node} node @param {Partial<View>} given */
function receive(node, given) {
  const view = complete(given);
  showView(node, view);
  if (view.done && view.warning) warn(node, view);
}

/**
 * Put a view among the node's outputs, which the host keeps while another workflow's tab is open. A model patch has
 * finished before the sampler runs, so its own output holds no view yet.
 * @param {Node} node @param {Partial<View>} view
 */
function keep(node, view) {
  const output = app.nodeOutputs?.[outputKey(node)];
  if (output?.[VIEW]) output[VIEW] = [view]; // change the object itself: the host has it in two places
}

/** Curves on or off. The host calls this before it changes the setting. */
function onChange() {
  queueMicrotask(() => everyNode(app.graph).forEach(redrawView));
}
