// Draws a view as an SVG: sharp at every zoom of the canvas, and readable for tests and screen readers.
// @ts-check
import { domain, ticks, words } from "./scale.mjs";

/** @import { Series, View } from "./types.mjs" */

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 38;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 18;
const STRIP = 4; // height of the row that shows where a guidance acted
/** @type {Record<string, string>} */
export const ACTION = { despecification: "#4da3ff", deduplication: "#b07cff", dissimilarity: "#ff8f4d" };

/**
 * @param {string} name @param {Record<string, string | number>} [attributes] @param {string} [text]
 */
function make(name, attributes = {}, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  if (text) element.textContent = text;
  return element;
}

/** Whether there is any value on the vertical axis. @param {Series} series */
export const measured = (series) => series.lines.some((line) => line.some((v) => v !== null));

/** The guidances that acted at least once. @param {View} view */
export const actionsOf = (view) =>
  Object.entries(view.acted).filter(([, rows]) => rows.some((row) => row.some((strength) => strength > 0)));

/** Warm colours for images that need attention, cool ones for the others. @param {View} view @param {number} sample */
function colour(view, sample) {
  const [from, to] = view.marked[sample] ? [-12, 36] : [180, 235];
  const share = view.marked.length > 1 ? sample / (view.marked.length - 1) : 0.5;
  return `hsl(${from + (to - from) * share} 75% 55%)`;
}

/** @param {View} view @param {Series} series @param {number} width @param {number} height */
export function plot(view, series, width, height) {
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": view.headline });
  const last = Math.max(view.steps - 1, 1);
  const actions = actionsOf(view);
  const bottom = height - BOTTOM - actions.length * (STRIP + 1);
  const [low, high] = domain([...series.lines, series.limit]);
  const x = (/** @type {number} */ i) => LEFT + ((width - LEFT - RIGHT) * i) / last;
  const y = (/** @type {number} */ v) => bottom - ((bottom - TOP) * (v - low)) / (high - low);

  view.begins.forEach((begin, sample) => {
    if (begin <= 0) return;
    const end = x(Math.min(begin, last));
    const shade = { x: x(0), y: TOP, width: Math.max(end - x(0), 0), height: bottom - TOP, class: "mg-unguided" };
    svg.append(make("rect", { ...shade, "fill-opacity": 0.3 / view.begins.length, "data-sample": sample }));
  });
  axes(svg, view.x, measured(series), { x, y, low, high, last, bottom, width, height });
  if (series.limit.length && measured(series)) {
    const limit = series.limit.length === 1 ? Array(last + 1).fill(series.limit[0]) : series.limit;
    for (const points of runs(limit, x, y)) svg.append(make("polyline", { points, class: "mg-limit" }));
  }
  series.lines.forEach((line, sample) => svg.append(curve(view, line, sample, x, y)));
  actions.forEach(([name, rows], row) => strip(svg, name, rows, { x, y: bottom + 2 + row * (STRIP + 1) }));
  return svg;
}

/**
 * One image's curve, and the point at which its guidance begins.
 * @param {View} view @param {(number | null)[]} line @param {number} sample
 * @param {(i: number) => number} x @param {(v: number) => number} y
 */
function curve(view, line, sample, x, y) {
  const stroke = colour(view, sample);
  const group = make("g", { class: "mg-line", "data-sample": sample, stroke });
  group.append(make("title", {}, describe(view, sample)));
  for (const points of runs(line, x, y)) {
    group.append(points.includes(" ") ? make("polyline", { points }) : dot(points, stroke));
  }
  const begin = view.begins[sample];
  const seen = line.findLastIndex((v, i) => v !== null && i <= begin);
  if (begin > 0 && begin < view.steps && seen >= 0) {
    const height = y(/** @type {number} */ (line[seen]));
    const points = `${x(seen)},${height} ${x(begin)},${height}`;
    if (seen < begin) group.append(make("polyline", { points, class: "mg-gap" }));
    group.append(make("circle", { cx: x(begin), cy: height, r: 3, fill: stroke, class: "mg-begin" }));
  }
  return group;
}

/** A step without a measured step beside it. @param {string} point @param {string} fill */
function dot(point, fill) {
  const [cx, cy] = point.split(",");
  return make("circle", { cx, cy, r: 2.5, fill, class: "mg-alone" });
}

/** @param {View} view @param {number} sample */
function describe(view, sample) {
  const begin = view.begins[sample];
  const image = `image ${sample + 1}`;
  if (begin === undefined) return image;
  return begin < view.steps ? `${image}: guidance starts at step ${begin + 1}` : `${image}: no guidance yet`;
}

/**
 * @param {Element} svg @param {string} name @param {boolean} values  has the vertical axis any?
 * @param {{x: (i: number) => number, y: (v: number) => number, low: number, high: number, last: number,
 *   bottom: number, width: number, height: number}} at
 */
function axes(svg, name, values, at) {
  for (const value of values ? ticks(at.low, at.high, 3) : []) {
    const y = at.y(value);
    svg.append(make("line", { x1: LEFT, x2: at.width - RIGHT, y1: y, y2: y, class: "mg-grid" }));
    svg.append(make("text", { x: LEFT - 4, y: y + 3, "text-anchor": "end" }, words(value)));
  }
  for (const step of [0, Math.round(at.last / 2), at.last]) {
    const anchor = step === 0 ? "start" : step === at.last ? "end" : "middle";
    const number = name === "step" ? step + 1 : step; // people count steps from 1; 0 iterations are the seed's noise
    const said = step === at.last ? `${name} ${number}` : String(number);
    svg.append(make("text", { x: at.x(step), y: at.height - 5, "text-anchor": anchor }, said));
  }
}

/**
 * The points of one polyline for each stretch without a gap in the measurement.
 * @param {(number | null)[]} values @param {(i: number) => number} x @param {(v: number) => number} y
 */
function runs(values, x, y) {
  /** @type {string[]} */
  const out = [];
  /** @type {string[]} */
  let points = [];
  const close = () => {
    if (points.length) out.push(points.join(" "));
    points = [];
  };
  values.forEach((value, i) => {
    if (value === null) close();
    else points.push(`${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  });
  close();
  return out;
}

/**
 * A mark at each step at which a guidance acted, the more opaque the more images it acted on.
 * @param {Element} svg @param {string} name @param {number[][]} rows
 * @param {{x: (i: number) => number, y: number}} at
 */
function strip(svg, name, rows, at) {
  const width = Math.max(at.x(1) - at.x(0) - 0.5, 1);
  for (let i = 0; i < (rows[0]?.length ?? 0); i++) {
    const share = rows.filter((row) => row[i] > 0).length / rows.length;
    if (!share) continue;
    const left = Math.max(at.x(i) - width / 2, LEFT);
    const look = { fill: ACTION[name] ?? "currentColor", "fill-opacity": 0.25 + 0.75 * share, class: "mg-acted" };
    const mark = make("rect", { x: left, y: at.y, width, height: STRIP, ...look });
    mark.append(make("title", {}, `${name}, step ${i + 1}: ${Math.round(100 * share)} % of the images`));
    svg.append(mark);
  }
}
