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
import { isShown, watchQueue, workflowOf } from "./runs.mjs";
import { judgeAgain, watchRuns } from "./stale.mjs";
import { complete } from "./types.mjs";
import { addStyle } from "./view_style.mjs";
import { addViewWidget, redrawView, showView, viewWidgetOf } from "./view_widget.mjs";
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
    watchQueue();
    watchRuns();
    /** @param {string} type @param {(detail: any) => void} act */
    const on = (type, act) => api.addEventListener(type, (event) => act(/** @type {CustomEvent} */ (event).detail ?? {}));
    on(`${VIEW}.view`, ({ node: id, view }) => {
      if (!view?.kind) return;
      keep(String(id), view);
      const node = isShown(view.run) && nodeAt(app.graph, String(id));
      if (!node) return;
      showOutside(node, String(id), complete(view));
      receive(node, view);
    });
    on("executed", ({ node: own, display_node: id, output, prompt_id: run }) => {
      const node = nodeAt(app.graph, String(id || own));
      const view = output?.[VIEW]?.[0];
      if (!node) return;
      if (!isShown(run)) putBack(node);
      else if (view?.kind) receive(node, view);
    });
    on("execution_cached", ({ nodes = [], prompt_id: run }) => {
      if (isShown(run)) restoreViews(run, nodes, VIEW);
    });
  },

  nodeCreated(node) {
    if (!classOf(node)?.startsWith("MG_")) return;
    addApplyButton(node);
    addViewWidget(node);
    watchInputs(node);
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
    judgeAgain();
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
 * @param {string} id  the node's execution id @param {Partial<View>} view
 */
function keep(id, view) {
  const run = view.run ?? "";
  const node = isShown(run) && nodeAt(app.graph, id);
  const output = node ? app.nodeOutputs?.[outputKey(node)] : workflowOf(run)?.changeTracker?.nodeOutputs?.[id];
  if (output?.[VIEW]) output[VIEW] = [view]; // change the object itself: the host has it in two places
}

/**
 * Put a node's own view among its outputs again: the host has put those of another workflow's node there, because it has
 * the same id, and would show them when the user opens this workflow's tab the next time.
 * @param {Node} node
 */
function putBack(node) {
  const key = outputKey(node);
  const output = app.nodeOutputs?.[key];
  const view = viewWidgetOf(node)?.view;
  if (!app.nodeOutputs || !(view || output?.[VIEW])) return;
  app.nodeOutputs[key] = { ...output, [VIEW]: view ? [view] : [] }; // another object: the host has it in two places
}

/** Curves on or off. The host calls this before it changes the setting. */
function onChange() {
  queueMicrotask(() => everyNode(app.graph).forEach(redrawView));
}
