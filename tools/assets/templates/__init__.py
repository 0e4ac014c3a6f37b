"""The workflows in `workflows/`, by the name of their file; tools/assets/write_templates.py writes them."""

from collections.abc import Callable

from tools.assets.templates.escape import detect_first, dynamic_deferral, simple_guard, words_that_pull
from tools.assets.templates.noise import batch_wise_noise, per_sample_noise
from tools.assets.templates.references import check_a_batch, check_finished_images, everything, keep_a_lora, recommended
from tools.assets.templates.template import Template

TEMPLATES: dict[str, Callable[[], Template]] = {
    "Memorization Guard (Simple)": simple_guard,
    "Per-sample noise": per_sample_noise,
    "Batch-wise noise, deferred start": batch_wise_noise,
    "Dynamic deferral": dynamic_deferral,
    "Detect first, then sample": detect_first,
    "Find the words that pull": words_that_pull,
    "Recommended, where you have the pictures": recommended,
    "Keep a LoRA from copying": keep_a_lora,
    "Everything together, with a copy check": everything,
    "Check a batch for copies": check_a_batch,
    "Check finished images": check_finished_images,
}
