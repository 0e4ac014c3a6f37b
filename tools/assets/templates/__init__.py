"""The workflows in `workflows/`, by the name of their file; tools/assets/write_templates.py writes them."""

from collections.abc import Callable

from tools.assets.templates import references as made
from tools.assets.templates.template import Template

TEMPLATES: dict[str, Callable[[], Template]] = {
    "Memorization Guard (Simple)": made.simple_guard,
    "Per-sample noise": made.per_sample_noise,
    "Batch-wise noise, deferred start": made.batch_wise_noise,
    "Dynamic deferral": made.dynamic_deferral,
    "Detect first, then sample": made.detect_first,
    "Find the words that pull": made.words_that_pull,
    "Recommended, where you have the pictures": made.recommended,
    "Keep a LoRA from copying": made.keep_a_lora,
    "Everything together, with a copy check": made.everything,
    "Check a batch for copies": made.check_a_batch,
    "Check finished images": made.check_finished_images,
}
