// Written by tools/assets/node_facts.py. Do not edit: change nodes/schema.py and run that program again.
// @ts-check

/** The nodes that show a view. */
export const VIEWED = new Set([
  "MG_Guard", "MG_NoiseOptimizer", "MG_BasinEscapeDetector", "MG_DeferredCFGKSampler", "MG_DeferredCFGGuider",
  "MG_DeferredCFG", "MG_PromptCheck", "MG_PromptFreeCheck", "MG_PromptReanchor", "MG_Calibrate", "MG_AMGGuidance",
  "MG_ReferencesFromFolder", "MG_ReferencesFromImages", "MG_ReferencesFromLatents", "MG_SaveReferences",
  "MG_LoadReferences", "MG_CopyCheck", "MG_LoRAAudit",
]);

/** Choice -> each of its values -> the inputs that it uses. @type {Record<string, Record<string, string[]>>} */
export const USED_WITH = {
  method: {
    "per-sample": ["target_magnitude", "target_units", "learning_rate", "weight_decay", "max_iterations", "constraint", "checkpointing", "memorized_threshold"],
    "batch-wise": ["adjustment_strength", "sharpness_radius", "adjustments"],
    "search": ["target_magnitude", "target_units", "candidates", "memorized_threshold"],
  },
  mode: {
    "dynamic": ["pre_escape_cfg", "start_percent", "rule", "drop_ratio", "memorized_threshold"],
    "static": ["pre_escape_cfg", "start_percent"],
    "off": [],
  },
  rule: { "sharp drop": ["drop_ratio"], "local minimum": [] },
  threshold_schedule: { "parabolic": ["threshold_max"], "exponential": ["threshold_max"], "constant": [] },
  metric: {
    "latent": ["width", "height", "latent_threshold"],
    "nL2": ["width", "height", "nl2_threshold"],
    "descriptor": ["threshold", "draw_matches"],
  },
  preset: {
    "custom": ["method", "target_units", "max_iterations", "constraint", "memorized_threshold", "target_magnitude", "learning_rate", "weight_decay", "adjustment_strength", "sharpness_radius", "adjustments", "steps", "sampler_name", "scheduler", "cfg", "mode", "pre_escape_cfg", "start_percent", "rule", "despecification", "deduplication", "dissimilarity", "threshold_min", "threshold_max", "threshold_schedule", "gradient", "dissimilarity_growth", "every"],
    "Han 2025, SD 1.4, per-sample": [],
    "Han 2025, SD 1.4, batch-wise": [],
    "Han 2025, SD 2, per-sample": [],
    "Han 2025, SD 2, batch-wise": [],
    "Jain 2025, static as released": [],
    "Jain 2025, dynamic as released": [],
    "Chen 2024, AMG as released": [],
  },
};

/** Connected input -> the inputs that it replaces. @type {Record<string, string[]>} */
export const REPLACED_BY = {"size_of": ["width", "height"]};
