// Which inputs of a graph take the values that Calibrate Thresholds suggests. Needs no page, so that Node can test it.
// @ts-check

/** @import { Node, Widget } from "../../scripts/app.js" */
/** @typedef {{node: Node, widget: Widget, value: unknown}} Change */
/** @typedef {{node: Node, name: string, why: string}} Kept */

const OFF_AT_0 = "memorized_threshold";
const TARGET = "target_magnitude"; // a node that has it changes ordinary noises, too, unless it knows the threshold

/** @param {Node} node @param {string} name */
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/**
 * @param {Node[]} nodes  of this pack, and subgraphs with such nodes inside
 * @param {Record<string, number>} values  by the names of inputs
 * @param {(node: Node, name: string) => boolean} isLinked
 * @returns {{changes: Change[], kept: Kept[]}}
 */
export function planned(nodes, values, isLinked) {
  /** @type {Change[]} */
  const changes = [];
  /** @type {Kept[]} */
  const kept = [];
  for (const node of nodes) {
    for (const [name, value] of Object.entries(values)) {
      const widget = widgetOf(node, name);
      if (!widget) continue;
      const why = reasonToKeep(node, name, widget, isLinked);
      if (why) {
        kept.push({ node, name, why });
        continue;
      }
      changes.push({ node, widget, value });
      const units = name === TARGET && widgetOf(node, "target_units");
      if (units && units.value !== "relative") changes.push({ node, widget: units, value: "relative" });
    }
  }
  return { changes, kept };
}

/** @param {Node} node @param {string} name @param {Widget} widget @param {(node: Node, name: string) => boolean} isLinked */
function reasonToKeep(node, name, widget, isLinked) {
  if (isLinked(node, name)) return "it comes from another node";
  const preset = widgetOf(node, "preset")?.value ?? "custom";
  if (preset !== "custom") return "the preset decides";
  const off = name === OFF_AT_0 && widget.value === 0 && !widgetOf(node, TARGET);
  return off ? "it is 0, which means off" : "";
}

/** What was changed, in words. @param {{changes: Change[], kept: Kept[]}} plan @returns {string} */
export function told({ changes, kept }) {
  /** @type {Map<string, string[]>} */
  const lines = new Map();
  for (const { node, widget, value } of changes) {
    const set = `${widget.name} is now ${value}`;
    lines.set(set, [...(lines.get(set) ?? []), node.title]);
  }
  const said = [...lines].map(([set, titles]) => `${set} in ${titles.join(", ")}.`);
  return [...said, ...kept.map(({ node, name, why }) => `Left as it is: ${name} of ${node.title} (${why}).`)].join("\n");
}
