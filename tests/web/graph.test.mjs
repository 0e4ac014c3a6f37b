// Finding nodes. Run by tests/unit/test_web.py, or `node --test tests/web/`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { everyNode, nodeAt, outputsByNode } from "../../web/graph.mjs";

/** A graph as the host keeps it: numbers as ids, subgraphs by uuid. */
function graph(id, nodes) {
  return { id, nodes, getNodeById: (wanted) => nodes.find((n) => n.id === wanted) ?? null };
}

const deepest = graph("uuid-2", [{ id: 5 }]);
const inner = graph("uuid-1", [{ id: 5 }, { id: 7, subgraph: deepest }]);
const root = graph("root", [{ id: 5 }, { id: 12, subgraph: inner }]);
root.subgraphs = new Map([["uuid-1", inner], ["uuid-2", deepest]]);
for (const sub of [inner, deepest]) sub.rootGraph = root;

test("a node of the graph", () => {
  assert.equal(nodeAt(root, "5"), root.nodes[0]);
});

test("a node in a subgraph, and in a subgraph of that", () => {
  assert.equal(nodeAt(root, "12:5"), inner.nodes[0]);
  assert.equal(nodeAt(root, "12:7:5"), deepest.nodes[0]);
});

test("the same while a subgraph is open", () => {
  assert.equal(nodeAt(inner, "12:5"), inner.nodes[0]);
  assert.equal(nodeAt(deepest, "5"), root.nodes[0]);
});

test("nothing where there is nothing", () => {
  for (const id of ["99", "5:5", "12:99", "99:5", ""]) assert.equal(nodeAt(root, id), undefined, id);
  assert.equal(nodeAt(undefined, "5"), undefined);
});

test("outputs by the frontend's keys", () => {
  const pairs = outputsByNode(root, { 5: "a", "uuid-1:5": "b", "uuid-2:5": "c", "uuid-3:5": "d", 99: "e" });
  assert.deepEqual(pairs, [[root.nodes[0], "a"], [inner.nodes[0], "b"], [deepest.nodes[0], "c"]]);
  assert.deepEqual(outputsByNode(root, { "12:7:5": "f", "12:99": "g" }), [[deepest.nodes[0], "f"]]);
  assert.deepEqual(outputsByNode(root, undefined), []);
});

test("every node, also in subgraphs", () => {
  assert.equal(everyNode(root).length, 5);
  assert.equal(everyNode(inner).length, 5);
  assert.deepEqual(everyNode(undefined), []);
});
