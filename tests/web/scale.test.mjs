// The numbers on an axis. Run by tests/unit/test_web.py, or `node --test tests/web/`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { domain, ticks, words } from "../../web/scale.mjs";

test("a range holds all values", () => {
  for (const values of [[0.1, 0.5], [-3, 2], [1000, 1001], [5e-9, 6e-9], [-2, -1]]) {
    const [low, high] = domain([values]);
    assert.ok(low <= Math.min(...values) && high > Math.max(...values), `${values}: ${low} … ${high}`);
  }
});

test("a range holds the values of all lines", () => {
  assert.deepEqual(domain([[3, 5], [], [-1, 2]]), domain([[-1, 5]]));
});

test("a range of very many values", () => {
  const line = Array.from({ length: 500_000 }, (_, i) => i % 1000);
  assert.deepEqual(domain([line, line]), domain([[0, 999]]));
});

test("zero is included when it is near, and not when it is far", () => {
  assert.equal(domain([[0.1, 0.5]])[0], 0);
  assert.equal(domain([[0.9, 1]])[0], 0);
});

test("what was not measured does not count", () => {
  assert.deepEqual(domain([[null, 0.2, null, Number.NaN, 0.4]]), domain([[0.2, 0.4]]));
  assert.deepEqual(domain([]), [0, 1]);
  assert.deepEqual(domain([[null]]), [0, 1]);
});

test("equal values have room around them", () => {
  for (const value of [0, 3, -3]) {
    const [low, high] = domain([[value, value]]);
    assert.ok(low <= value && value <= high && low < high, `${value}: ${low} … ${high}`);
  }
});

test("ticks are round, inside, and few", () => {
  for (const [low, high] of [[0, 0.0371], [-1.3, 8], [0.883, 1.01], [0, 1e-6], [0, 12345]]) {
    const found = ticks(low, high, 3);
    assert.ok(found.length >= 1 && found.length <= 5, `${low} … ${high}: ${found}`);
    for (const value of found) {
      assert.ok(value >= low - 1e-12 && value <= high + 1e-12);
      assert.ok(words(value).length <= 8, words(value));
    }
  }
});

test("numbers are short", () => {
  assert.equal(words(0.1 + 0.2), "0.3");
  assert.equal(words(0), "0");
});
