// Finds nodes, in the graph and in its subgraphs.
// @ts-check

/** @import { Graph, Node } from "../../scripts/app.js" */

/** The node's id in its Python schema. @param {Node} node */
export const classOf = (node) => node.comfyClass ?? node.type;

/**
 * The node with an execution id as the server writes it: "5", or "12:7:5" for node 5 in subgraph node 7 in 12.
 * @param {Graph | undefined} root @param {string} id
 * @returns {Node | undefined}
 */
export function nodeAt(root, id) {
  const path = id.split(":");
  let graph = root?.rootGraph ?? root;
  for (const step of path.slice(0, -1)) graph = find(graph, step)?.subgraph;
  return find(graph, path[path.length - 1]);
}

/** @param {Graph | undefined} graph @param {string} id */
function find(graph, id) {
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id)) ?? undefined;
}

/**
 * Pairs of a node and its outputs, from the frontend's table. Its keys are "5", or "<uuid of the subgraph>:5",
 * or execution ids where the node ran while another workflow's tab was open.
 * @param {Graph | undefined} root @param {Record<string, any> | undefined} outputs
 * @returns {[Node, any][]}
 */
export function outputsByNode(root, outputs) {
  const top = root?.rootGraph ?? root;
  return Object.entries(outputs ?? {}).flatMap(([key, output]) => {
    const at = key.lastIndexOf(":");
    const held = find(at < 0 ? top : top?.subgraphs?.get(key.slice(0, at)), key.slice(at + 1));
    const node = held ?? nodeAt(root, key);
    return node ? [/** @type {[Node, any]} */ ([node, output])] : [];
  });
}

/** The node's key in that table. @param {Node} node */
export function outputKey(node) {
  const graph = node.graph;
  return graph?.rootGraph && graph !== graph.rootGraph ? `${graph.id}:${node.id}` : String(node.id);
}

/** Every node, also those in subgraphs. @param {Graph | undefined} root @returns {Node[]} */
export function everyNode(root) {
  const top = root?.rootGraph ?? root;
  return [top, ...(top?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? []);
}
