// The warnings that pop up, and the settings of the pack.
// @ts-check
import { app } from "../../scripts/app.js";
import { outputKey } from "./graph.mjs";
import { quoted } from "./view_parts.mjs";

/** @import { Node, Setting, Toast } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */

const WARNINGS = "MemorizationGuard.Warnings";
export const CURVES = "MemorizationGuard.Curves";
const SECONDS = 12;

/** @type {Setting[]} */
export const SETTINGS = [
  {
    id: WARNINGS,
    category: ["Memorization Guard", "Nodes", "Warnings"],
    name: "Show a message when a node has a warning, such as a memorized prompt or a copy",
    tooltip: "The mark on the node stays either way.",
    type: "boolean",
    defaultValue: true,
  },
  {
    id: CURVES,
    category: ["Memorization Guard", "Nodes", "Curves"],
    name: "Draw curves on the nodes while they run",
    tooltip: "If this is off, nodes show only their text and outputs.",
    type: "boolean",
    defaultValue: true,
  },
];

/**
 * The runs and nodes that warned. A result from the cache must not warn again, and the host makes nodes anew when the
 * user opens a workflow's tab or takes a change back. @type {Set<string>}
 */
const warned = new Set();

/** @param {string} id */
export const setting = (id) => app.extensionManager?.setting?.get(id) ?? true;

/** @param {Node} node @param {View} view */
export function warn(node, view) {
  const key = `${view.run} ${outputKey(node)}`;
  if (warned.has(key)) return;
  warned.add(key);
  if (!setting(WARNINGS)) return;
  message("warn", node.title, quoted(view.warning));
}

/** Show a message for some seconds. @param {Toast["severity"]} severity @param {string} summary @param {string} detail */
export function message(severity, summary, detail) {
  app.extensionManager?.toast?.add({ severity, summary, detail, life: SECONDS * 1000 });
}
