// The style sheet of the views.
// @ts-check
import { LINE, NEAREST, NOTES, PLOT } from "./view_layout.mjs";

const CSS = `
.mg-view { display: flex; flex-direction: column; gap: 4px; width: 100%; height: 100%; box-sizing: border-box;
  overflow: hidden; padding: 2px 6px; font: 11px/${LINE}px sans-serif; color: var(--input-text, #ddd);
  user-select: text; }
.mg-view.mg-dimmed > :not(.mg-stale) { opacity: 0.4; filter: saturate(0.4); }
.mg-view .mg-stale { font-style: italic; }
.mg-view .mg-warning { background: #b4530933; border-left: 3px solid #f59e0b; padding: 2px 6px; border-radius: 3px; }
.mg-view .mg-notes { color: var(--descrip-text, #999); white-space: pre-wrap; overflow-wrap: anywhere;
  overflow-y: auto; flex: 1 1 0; }
.mg-view .mg-notes .mg-hint { color: var(--input-text, #ddd); background: #b4530922;
  box-shadow: -3px 0 #f59e0b; padding-left: 3px; margin-left: 3px; -webkit-box-decoration-break: clone;
  box-decoration-break: clone; }
.mg-view .mg-plot ~ .mg-notes { flex: none; max-height: ${NOTES * LINE}px; }
.mg-view .mg-plot { flex: 1 1 ${PLOT}px; min-height: ${PLOT}px; overflow: hidden; }
.mg-view svg { width: 100%; height: 100%; display: block; }
.mg-view svg text { fill: var(--descrip-text, #999); font-size: 10px; }
.mg-view .mg-name { color: var(--descrip-text, #999); font-size: 10px; text-align: right; }
.mg-view button.mg-name { background: none; border: 0; padding: 0; cursor: pointer; align-self: flex-end; }
.mg-view .mg-grid { stroke: var(--border-color, #555); stroke-width: 0.5; }
.mg-view .mg-unguided { fill: #7aa2d6; }
.mg-view .mg-limit { fill: none; stroke: var(--input-text, #ddd); stroke-dasharray: 4 3; opacity: 0.8; }
.mg-view .mg-line .mg-gap { stroke-dasharray: 1 3; }
.mg-view .mg-line polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round; }
.mg-view .mg-line:hover polyline { stroke-width: 3; }
.mg-view .mg-legend { display: flex; flex-wrap: wrap; gap: 0 10px; min-height: ${LINE}px;
  color: var(--descrip-text, #999); }
.mg-view .mg-legend i { display: inline-block; width: 10px; height: 8px; margin-right: 4px; border-radius: 2px; }
.mg-view .mg-words { font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere; flex: none; }
.mg-view .mg-words span { border-radius: 3px; }
.mg-view .mg-nearest { display: flex; gap: 6px; overflow-x: auto; min-height: ${NEAREST}px; }
.mg-view figure { margin: 0; text-align: center; flex: none; }
.mg-view figure img { height: 34px; border-radius: 3px; display: block; margin: auto; }
`;

/** Add the style sheet to the page. */
export function addStyle() {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(CSS);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}
