// Finding nodes, in the graph and in subgraphs.
// @ts-check

/**
 * The node with an execution id as the server writes it: "5", or "12:7:5" for node 5 in subgraph node 7 in 12.
 * @param {any} root @param {string} id
 */
export function nodeAt(root, id) {
  const path = id.split(":");
  let graph = root?.rootGraph ?? root;
  for (const step of path.slice(0, -1)) graph = find(graph, step)?.subgraph;
  return graph && find(graph, path[path.length - 1]);
}

/** @param {any} graph @param {string} id */
function find(graph, id) {
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id)) ?? undefined;
}

/**
 * Pairs of a node and its outputs, from the frontend's table: keys are "5", or "<subgraph's uuid>:5".
 * @param {any} root @param {Record<string, any>} outputs
 * @returns {[any, any][]}
 */
export function outputsByNode(root, outputs) {
  const top = root?.rootGraph ?? root;
  return Object.entries(outputs ?? {}).flatMap(([key, output]) => {
    const at = key.lastIndexOf(":");
    const graph = at < 0 ? top : top?.subgraphs?.get(key.slice(0, at));
    const node = graph && find(graph, key.slice(at + 1));
    return node ? [/** @type {[any, any]} */ ([node, output])] : [];
  });
}
