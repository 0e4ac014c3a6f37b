// Tells which open workflow a run belongs to, and what was queued. A message of the server names a run and the id of a node,
// and by the time it comes the user may have opened the tab of another workflow, in which another node has the same id.
// @ts-check
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** @import { Prompt, Workflow } from "../../scripts/app.js" */

/** @typedef {{workflow: Workflow, prompt: Prompt | undefined}} Sent */

const PROMPTS = 64; // the latest ones, which are kept

/** By the run's id. A workflow is held weakly, because its tab may be closed. @type {Map<string, WeakRef<Workflow>>} */
const queued = new Map();

/** By the run's id. @type {Map<string, Prompt>} */
const prompts = new Map();

/** What is on the way to the server: its first messages may come before its answer. @type {Sent[]} */
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
  return known ? known.deref() : (sending[0]?.workflow ?? shownWorkflow());
}

/** Whether the open tab's workflow queued a run. @param {string} run */
export const isShown = (run) => workflowOf(run) === shownWorkflow();

/** What a run was queued with, as long as it is kept. @param {string} run */
export const promptOf = (run) => prompts.get(run) ?? (queued.has(run) ? undefined : sending[0]?.prompt);

/** @param {string} run @param {Sent} sent */
function note(run, { workflow, prompt }) {
  queued.set(run, new WeakRef(workflow));
  if (prompt) prompts.set(run, prompt);
  for (const oldest of [...prompts.keys()].slice(0, -PROMPTS)) prompts.delete(oldest);
}

/** Note the workflow of every run from now on. No event tells it: the host gives only its answer to the prompt an id. */
export function watchQueue() {
  const queuePrompt = api.queuePrompt;
  if (typeof queuePrompt !== "function") return;
  api.queuePrompt = async function (...given) {
    const sent = { workflow: shownWorkflow(), prompt: given[1]?.output };
    sending.push(sent);
    try {
      const answer = await queuePrompt.apply(this, given);
      if (answer?.prompt_id) note(String(answer.prompt_id), sent);
      return answer;
    } finally {
      sending.splice(sending.indexOf(sent), 1);
    }
  };
}
