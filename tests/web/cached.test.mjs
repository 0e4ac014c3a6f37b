// Which earlier run the view of a cached node comes from. Run by tests/unit/test_web.py, or `node --test tests/web/`.
import assert from "node:assert/strict";
import { register } from "node:module";
import { test } from "node:test";

// The host's scripts exist only in its page: an empty module replaces them.
const EMPTY = "data:text/javascript,export const app={registerExtension(){}};export const api=new EventTarget();";
const hook = `export async function resolve(name, context, next) {
  return name.includes("/scripts/") ? { url: ${JSON.stringify(EMPTY)}, shortCircuit: true } : next(name, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
const { sameNode } = await import("../../web/cached.mjs");
const { complete } = await import("../../web/types.mjs");

const run = (seed, text = "a ring") => ({
  1: { class_type: "Loader", inputs: { name: "x" } },
  2: { class_type: "Text", inputs: { clip: ["1", 1], text } },
  3: { class_type: "Sampler", inputs: { model: ["1", 0], positive: ["2", 0], seed } },
  4: { class_type: "Save", inputs: { images: ["3", 0] } },
});

test("the same values and the same nodes before it", () => {
  assert.ok(sameNode(run(1), run(1), "4"));
  assert.ok(sameNode(run(1), run(2), "2"), "what comes after it does not matter");
});

test("another value, there or further up", () => {
  assert.ok(!sameNode(run(1), run(2), "3"));
  assert.ok(!sameNode(run(1), run(2), "4"));
  assert.ok(!sameNode(run(1), run(1, "a disc"), "3"));
});

test("another node, another link, none at all", () => {
  const other = run(1);
  other[2].class_type = "Text2";
  assert.ok(!sameNode(run(1), other, "3"));
  const linked = run(1);
  linked[3].inputs.positive = ["2", 1];
  assert.ok(!sameNode(run(1), linked, "3"));
  assert.ok(!sameNode(run(1), run(1), "9"));
});

test("the same nodes under other ids", () => {
  const moved = Object.fromEntries(Object.entries(run(1)).map(([id, node]) => {
    const inputs = Object.entries(node.inputs).map(([k, v]) => [k, Array.isArray(v) ? [`1${v[0]}`, v[1]] : v]);
    return [`1${id}`, { ...node, inputs: Object.fromEntries(inputs) }];
  }));
  assert.ok(sameNode(run(1), moved, "4", "14"));
  assert.ok(!sameNode(run(1), moved, "3", "12") && !sameNode(run(1), moved, "4"));
  assert.ok(!sameNode(run(2), moved, "3", "13"));
});

test("complete fills in every missing field", () => {
  const view = complete({ kind: "escape", series: [{ lines: [[1]] }], nearest: [{ name: "n" }] });
  assert.deepEqual([view.notes, view.steps, view.warning, view.series[0].limit], [[], 0, "", []]);
  assert.equal(view.nearest[0].closeness, null);
});
