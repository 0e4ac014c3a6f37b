// Inputs that the chosen method, mode or schedule does not use are hidden; their values stay and are saved.
// @ts-check
import { app } from "../../scripts/app.js";

/** @typedef {import("../../scripts/app.js").Node} Node */

/**
 * Input -> values of the deciding input with which it is used.
 * @type {Record<string, [string, Record<string, string[]>][]>}
 */
export const USED = {
  MG_NoiseOptimizer: [
    [
      "method",
      {
        target_magnitude: ["per-sample", "search"],
        target_units: ["per-sample", "search"],
        learning_rate: ["per-sample"],
        weight_decay: ["per-sample"],
        max_iterations: ["per-sample"],
        constraint: ["per-sample"],
        checkpointing: ["per-sample"],
        adjustment_strength: ["batch-wise"],
        sharpness_radius: ["batch-wise"],
        adjustments: ["batch-wise"],
        candidates: ["search"],
      },
    ],
  ],
  ...Object.fromEntries(
    ["MG_DeferredCFGKSampler", "MG_DeferredCFGGuider", "MG_DeferredCFG"].map((id) => [
      id,
      /** @type {[string, Record<string, string[]>][]} */ ([
        [
          "mode",
          {
            pre_escape_cfg: ["dynamic", "static"],
            start_percent: ["dynamic", "static"],
            rule: ["dynamic"],
            drop_ratio: ["dynamic"],
            memorized_threshold: ["dynamic"],
          },
        ],
        ["rule", { drop_ratio: ["sharp drop"] }],
      ]),
    ]),
  ),
  MG_BasinEscapeDetector: [["rule", { drop_ratio: ["sharp drop"] }]],
  MG_AMGGuidance: [["threshold_schedule", { threshold_max: ["parabolic", "exponential", "linear"] }]],
  MG_ReferencesFromFolder: [["metric", { width: ["latent", "nL2"], height: ["latent", "nL2"] }]],
};

/**
 * Connected input -> inputs that it stands in for.
 * @type {Record<string, Record<string, string[]>>}
 */
const REPLACED = { MG_ReferencesFromFolder: { size_of: ["width", "height"] } };

/** A widget's room, less the gap that follows it. @returns {[number, number]} */
const NOTHING = () => [0, -4];

/** @param {Node} node @param {string} name */
const widget = (node, name) => node.widgets?.find((w) => w.name === name);

/**
 * An input that is fed by a link decides and is used: nothing is known of its value.
 * @param {Node} node @param {string} name
 */
const linked = (node, name) => Boolean(node.inputs?.some((i) => i.name === name && i.link != null));

/** @param {Node} node */
export const nameOf = (node) => node.comfyClass ?? node.type;

/** @param {Node} node */
const rulesOf = (node) => USED[nameOf(node) ?? ""];

/** Tidy again whenever a deciding input changes. @param {Node} node */
export function watchInputs(node) {
  const rules = rulesOf(node);
  if (!rules) return;
  for (const [decider] of rules) {
    const held = widget(node, decider);
    if (!held) continue;
    const callback = held.callback;
    held.callback = function (...values) {
      const out = callback?.apply(this, values);
      tidyInputs(node);
      return out;
    };
  }
  const onConnectionsChange = node.onConnectionsChange;
  node.onConnectionsChange = function (...all) {
    onConnectionsChange?.apply(this, all);
    tidyInputs(this);
  };
}

/**
 * Nodes 2.0 keeps its own account of a node's widgets from the moment the node is added, and after the first edit
 * never looks at them again (frontend 1.32): the node is announced once more.
 * @param {Node} node
 */
function announceAgain(node) {
  if (!globalThis.LiteGraph?.vueNodesMode || app.configuringGraph || !node.graph?.onNodeAdded) return;
  const callbacks = node.widgets?.map((w) => w.callback) ?? [];
  node.graph.onNodeAdded(node);
  node.widgets?.forEach((w, i) => (w.callback = callbacks[i])); // not wrapped twice
}

/** Show what is used now, hide the rest. @param {Node} node */
export function tidyInputs(node) {
  const rules = rulesOf(node);
  if (!rules || !node.widgets) return;
  /** @type {Map<string, boolean>} */
  const hidden = new Map();
  for (const [decider, inputs] of rules) {
    const held = widget(node, decider);
    const open = !held || linked(node, decider);
    for (const [name, values] of Object.entries(inputs)) {
      hidden.set(name, hidden.get(name) === true || (!open && !values.includes(String(held.value))));
    }
  }
  for (const [link, inputs] of Object.entries(REPLACED[nameOf(node) ?? ""] ?? {})) {
    if (linked(node, link)) for (const name of inputs) hidden.set(name, true);
  }
  const before = node.computeSize()[1];
  let changed = false;
  for (const [name, hide] of hidden) {
    const held = widget(node, name);
    const now = hide && !linked(node, name);
    if (!held || Boolean(held.hidden) === now) continue;
    held.hidden = now; // the classic renderer draws it no more, but leaves its place free
    if (now) held.computeSize = NOTHING;
    else if (held.computeSize === NOTHING) delete held.computeSize;
    held.options.hidden = now; // Nodes 2.0
    changed = true;
  }
  if (!changed) return;
  announceAgain(node);
  node.setSize([node.size[0], Math.max(node.size[1] + node.computeSize()[1] - before, node.computeSize()[1])]);
  node.setDirtyCanvas?.(true, true);
}
