// What an artist should not miss, and can silence.
// @ts-check
import { app } from "../../scripts/app.js";

/** @typedef {import("./types.mjs").View} View */
/** @typedef {import("../../scripts/app.js").Node} Node */

const WARNINGS = "MemorizationGuard.Warnings";
export const CURVES = "MemorizationGuard.Curves";
const SECONDS = 12;

/** @type {import("../../scripts/app.js").Setting[]} */
export const SETTINGS = [
  {
    id: WARNINGS,
    category: ["Memorization Guard", "Nodes", "Warnings"],
    name: "Show a message when a prompt is memorized or a picture is a copy",
    tooltip: "The mark on the node stays either way.",
    type: "boolean",
    defaultValue: true,
  },
  {
    id: CURVES,
    category: ["Memorization Guard", "Nodes", "Curves"],
    name: "Draw curves on the nodes while they run",
    tooltip: "Off: nodes keep their text and outputs only.",
    type: "boolean",
    defaultValue: true,
  },
];

/**
 * Runs that were already announced, so that a result from the cache is not announced again.
 * @type {WeakMap<Node, string>}
 */
const told = new WeakMap();

/** @param {string} id */
export const setting = (id) => app.extensionManager?.setting?.get(id) ?? true;

/** @param {Node} node @param {View} view */
export function warn(node, view) {
  if (told.get(node) === view.run) return;
  told.set(node, view.run);
  if (!setting(WARNINGS)) return;
  app.extensionManager?.toast?.add({
    severity: "warn",
    summary: node.title,
    detail: view.warning,
    life: SECONDS * 1000,
  });
}
