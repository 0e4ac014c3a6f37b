// In the classic renderer, the middle button and the wheel move the canvas also where the pointer is on a view, as they
// do on the host's own text fields. Nodes 2.0 does this by itself.
// @ts-check
import { app } from "../../scripts/app.js";

const isClassic = () => !globalThis.LiteGraph?.vueNodesMode;

/** @param {HTMLElement} root */
export function passEventsToCanvas(root) {
  root.addEventListener("pointerdown", (event) => {
    if (event.button === 1 && isClassic()) app.canvas?.processMouseDown?.(event);
  });
  root.addEventListener("wheel", onWheel, { passive: false });
}

/** @param {WheelEvent} event */
function onWheel(event) {
  if (!isClassic() || scrollsNotes(event)) return;
  event.preventDefault();
  app.canvas?.processMouseWheel?.(event);
}

/** Notes that are longer than their space scroll. @param {WheelEvent} event */
function scrollsNotes(event) {
  const notes = /** @type {Element} */ (event.target).closest(".mg-notes");
  return !event.ctrlKey && notes !== null && notes.scrollHeight > notes.clientHeight;
}
