// Shows the view of a node inside a subgraph on the subgraph's node, too, where the frontend can show widgets there.
// @ts-check
import { app } from "../../scripts/app.js";
import { nodeAt } from "./graph.mjs";
import { viewWidgetOf } from "./view_widget.mjs";

/** @import { Node } from "../../scripts/app.js" */

const DONE = "shown_outside"; // a property of the node: whoever takes the view off the subgraph keeps it off

/** @param {Node} node @param {string} id  its execution id, such as "12:7:5" */
export function showOutside(node, id) {
  const path = id.split(":");
  let name = viewWidgetOf(node)?.name;
  if (path.length < 2 || !name || node.properties?.[DONE]) return;
  (node.properties ??= {})[DONE] = true;
  while (path.length > 1) {
    const inner = String(path.pop());
    const holder = nodeAt(app.graph, path.join(":"));
    if (!holder) return;
    const properties = (holder.properties ??= {});
    const held = properties.proxyWidgets ?? [];
    /** @type {[string, string][]} */
    const pairs = typeof held === "string" ? JSON.parse(held) : held; // a node inside and the name of its widget
    const known = pairs.some(([id, widget]) => id === inner && widget === name);
    if (!known) properties.proxyWidgets = [...pairs, [inner, name]];
    name = `${inner}: ${name}`; // its name on the subgraph's node
    holder.setSize([holder.size[0], Math.max(holder.size[1], holder.computeSize()[1])]);
  }
}
