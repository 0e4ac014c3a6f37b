// Tells which open workflow a run belongs to. A message of the server names a run and the id of a node, and by the time it
// comes the user may have opened the tab of another workflow, in which another node has the same id.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** @import { Workflow } from "../../scripts/app.js" */

/** By the run's id. A workflow is held weakly, because its tab may be closed. @type {Map<string, WeakRef<Workflow>>} */
const queued = new Map();

/** Of prompts that are on the way to the server, whose first messages may come before its answer. @type {Workflow[]} */
const sending = [];

/** Stands for the only workflow, where the frontend tells of none. @type {Workflow} */
const ONLY = {};

/** The workflow of the open tab. */
export const shownWorkflow = () => app.extensionManager?.workflow?.activeWorkflow ?? ONLY;

/**
 * The workflow that queued a run, or undefined if it was closed. Of a run that was queued before the page was loaded nothing
 * is known, so that it counts as one of the open tab.
 * @param {string} run @returns {Workflow | undefined}
 */
export function workflowOf(run) {
  const known = queued.get(run);
  return known ? known.deref() : (sending[0] ?? shownWorkflow());
}

/** Whether the open tab's workflow queued a run. @param {string} run */
export const isShown = (run) => workflowOf(run) === shownWorkflow();

/** Note the workflow of every run from now on. No event tells it: the host gives only its answer to the prompt an id. */
export function watchQueue() {
  const queuePrompt = api.queuePrompt;
  if (typeof queuePrompt !== "function") return;
  api.queuePrompt = async function (...given) {
    const workflow = shownWorkflow();
    sending.push(workflow);
    try {
      const answer = await queuePrompt.apply(this, given);
      if (answer?.prompt_id) queued.set(String(answer.prompt_id), new WeakRef(workflow));
      return answer;
    } finally {
      sending.splice(sending.indexOf(workflow), 1);
    }
  };
}
