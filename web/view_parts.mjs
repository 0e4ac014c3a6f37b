// The parts of a view as HTML elements. Their texts may come from the user's files, so they are never set as markup.
// @ts-check
import { ACTION, actionsOf, measured } from "./plot.mjs";

/** @import { Series, View } from "./types.mjs" */

/**
 * @param {string} tag @param {string} name  its class @param {string} [text]
 * @returns {HTMLElement}
 */
export function element(tag, name, text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

/** A text of the server, with names of inputs as people write them. @param {string} text */
export const quoted = (text) => text.replace(/`([^`]+)`/g, "“$1”");

/**
 * The name of the vertical axis. With several series it is a button that shows the next one.
 * @param {View} view @param {number} chosen
 */
export function axisName(view, chosen) {
  const series = view.series[chosen];
  if (!measured(series)) return element("div", "mg-name");
  if (view.series.length === 1) return element("div", "mg-name", series.y);
  const button = element("button", "mg-name", `⇄ ${series.y}`);
  button.title = `Show ${view.series[(chosen + 1) % view.series.length].y}`;
  return button;
}

/** What the colours and the dashed line mean. @param {View} view @param {Series} series */
export function legend(view, series) {
  const line = element("div", "mg-legend");
  const add = (/** @type {string} */ name, /** @type {string} */ colour) => {
    const entry = element("span", "");
    const patch = element("i", "");
    patch.style.background = colour;
    if (colour) entry.append(patch);
    entry.append(name);
    line.append(entry);
  };
  for (const [name] of actionsOf(view)) add(name, ACTION[name] ?? "currentColor");
  if (view.begins.some((begin) => begin > 0)) add("without CFG", "#7aa2d699");
  if (series.limit.length && measured(series)) add(`- - ${series.limit_name}`, "");
  return line;
}

/** The notes, one a line; hints stand out. @param {View} view */
export function notesOf(view) {
  const notes = element("div", "mg-notes");
  for (const [i, note] of view.notes.entries()) {
    if (i) notes.append("\n");
    notes.append(element("span", note.startsWith("Hint:") ? "mg-hint" : "", quoted(note)));
  }
  return notes;
}

/** The prompt, with the words that pull in colour. @param {View} view */
export function wordsOf(view) {
  const sentence = element("div", "mg-words");
  for (const { text, share } of view.words) {
    const word = element("span", "", text);
    if (share > 0) word.style.background = `rgb(217 70 20 / ${(share ** 2).toFixed(2)})`;
    sentence.append(word);
  }
  return sentence;
}

/** The nearest references with their closeness. @param {View} view */
export function nearestImages(view) {
  const row = element("div", "mg-nearest");
  for (const near of view.nearest) {
    const figure = element("figure", "");
    figure.title = near.name;
    if (near.picture.startsWith("data:image/")) {
      const image = document.createElement("img");
      image.src = near.picture;
      image.alt = near.name;
      figure.append(image);
    }
    figure.append(element("figcaption", "", near.closeness?.toFixed(2)));
    row.append(figure);
  }
  return row;
}
