// Which inputs take the calibrated values. Run by tests/unit/test_web.py, or `node --test tests/web/`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { planned, told } from "../../web/suggested.mjs";

const VALUES = { target_magnitude: 0.01, memorized_threshold: 0.03 };
const node = (title, values) => ({ title, widgets: Object.entries(values).map(([name, value]) => ({ name, value })) });
const plan = (nodes, linked = []) => planned(nodes, VALUES, (_, name) => linked.includes(name));
const set = ({ changes }) => changes.map(({ node, widget, value }) => [node.title, widget.name, value]);

test("each input by its name, and the units that the value is in", () => {
  const both = { target_magnitude: 5, target_units: "absolute", memorized_threshold: 0 };
  const found = plan([node("sampler", { memorized_threshold: 0.02, cfg: 8 }), node("optimizer", both), node("check", {})]);
  assert.deepEqual(set(found), [
    ["sampler", "memorized_threshold", 0.03],
    ["optimizer", "target_magnitude", 0.01],
    ["optimizer", "target_units", "relative"],
    ["optimizer", "memorized_threshold", 0.03],
  ]);
  assert.equal(told(found), [
    "memorized_threshold is now 0.03 in sampler, optimizer.",
    "target_magnitude is now 0.01 in optimizer.",
    "target_units is now relative in optimizer.",
  ].join("\n"));
});

test("what is off, linked or set by a preset stays, and is named", () => {
  const found = plan([node("amg", { memorized_threshold: 0 }), node("paper", { target_magnitude: 1, preset: "Han" })]);
  assert.deepEqual(set(found), []);
  assert.match(told(found), /memorized_threshold of amg \(it is 0, which means off\)/);
  assert.match(told(found), /target_magnitude of paper \(the preset decides\)/);
  const linked = plan([node("s", { memorized_threshold: 0.02, preset: "custom" })], ["memorized_threshold"]);
  assert.deepEqual(set(linked), []);
  assert.match(told(linked), /it comes from another node/);
});

test("a graph without such inputs gives no words", () => {
  assert.equal(told(plan([node("check", { threshold: 0.5 })])), "");
});
