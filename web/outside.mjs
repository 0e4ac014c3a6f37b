// Shows the view of a node inside a subgraph on the subgraph's node, too.
// @ts-check
import { app } from "../../scripts/app.js";
import { nodeAt } from "./graph.mjs";
import { addView, change, viewWidgetOf } from "./view_widget.mjs";

/** @import { Node } from "../../scripts/app.js" */
/** @import { View } from "./types.mjs" */
/** @import { ViewWidget } from "./view_widget.mjs" */

const DONE = "shown_outside"; // a property of the node: whoever takes the view off the subgraph keeps it off

/** @param {Node} node @param {string} id  its execution id, such as "12:7:5" @param {View} view */
export function showOutside(node, id, view) {
  const path = id.split(":");
  const name = viewWidgetOf(node)?.name;
  if (path.length < 2 || !name) return;
  const root = app.graph?.rootGraph ?? app.graph;
  // Newer frontends show nothing outside but inputs, and take widgets that are added later.
  if (root && "proxyWidgetMigrationFlush" in root.constructor) addOutside(path, view);
  else if (!node.properties?.[DONE]) {
    (node.properties ??= {})[DONE] = true;
    proxyOutside(path, name);
  }
}

/** A view of its own on every node around. @param {string[]} path @param {View} view */
function addOutside(path, view) {
  for (let i = path.length - 1; i > 0; i--) {
    const holder = nodeAt(app.graph, path.slice(0, i).join(":"));
    if (!holder) return;
    const name = `view of ${path.slice(i).join(":")}`;
    const held = /** @type {ViewWidget | undefined} */ (holder.widgets?.find((widget) => widget.name === name));
    change(holder, held ?? addView(holder, name), view, "");
  }
}

/** The same widget, by the frontend's own list of what a subgraph shows. @param {string[]} path @param {string} name */
function proxyOutside(path, name) {
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
