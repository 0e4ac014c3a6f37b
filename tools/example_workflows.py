"""The workflows in `workflows/`, for tools/make_workflow.py.

.host/python tools/make_workflow.py tools/example_workflows.py --thumbnails
"""

from __future__ import annotations

from example_references import check_a_batch, keep_a_lora
from example_scene import OURS, PLAIN, STEPS, Scene
from make_workflow import Graph


def per_sample_noise() -> Graph:
    """A noise from which the prompt does not lead into the memorized picture, beside the plain run."""
    scene = Scene(batch=1)
    g = scene.graph
    optimizer = g.node(
        "MG_NoiseOptimizer", **scene.wires, noise_seed=scene.seed, method="per-sample",
    ).at(470, 0).sized(380, 450).paint("purple")  # fmt: skip
    summary = g.node("PreviewAny", "What the optimizer reached", source=optimizer["summary"])
    summary.at(470, 510).sized(380, 202)
    g.group("2 · Find a better starting noise", optimizer, summary, color=OURS)

    sampler = scene.deferred(940, 0, "Sampler (off = KSampler's own steps)", mode="off", noise=optimizer["noise"])
    picture = scene.picture(sampler["latent"], 1310, 0, 400, "per_sample", "With the optimized noise")
    g.group("3 · Sample from it, guided from the first step", sampler, *picture, color=OURS)

    plain = scene.plain(1800, 0)
    beside = scene.picture(plain["LATENT"], 2170, 0, 400, "plain", "Without")
    g.group("For comparison: same prompt, same seed", plain, *beside, color=PLAIN)

    g.note(
        "## Per-sample noise\n\n"
        "Some prompts were seen so often in training that the model answers with (nearly) the same picture, "
        "whatever the seed. This one is known for it with Stable Diffusion 1.4. Type your own "
        "prompt, and press Run.\n\n"
        "**Look at** the two pictures: with the optimized noise, and without. Try a few seeds: with a memorized "
        "prompt the one without hardly changes.",
        "Start here",
    ).at(0, -310).sized(380, 190)  # fmt: skip
    g.note(
        "**Which value to turn**\n\n"
        "`target_magnitude` is how quiet the prompt's pull has to become. The text below tells what was reached. "
        "Still the same picture? *Lower* it, in steps of 0.001. NOT REACHED? Raise `max_iterations`.\n\n"
        "A prompt that was already quiet keeps its noise: both pictures are then the same.\n\n"
        "Out of memory? Set `method` to `search`: no gradients.",
        "The one dial",
    ).at(470, -310).sized(380, 190)  # fmt: skip
    g.note(
        "`mode` is **off** here: the sampler does exactly what KSampler does, but lets you connect a noise. "
        "Keep the model, prompts and latent the same as on the optimizer; the noise was made for them.\n\n"
        "`std` in the summary should stay near 1. When it drifts far above, the picture gets harsh and follows "
        "the prompt less: lower `learning_rate`.",
        "About the sampler",
    ).at(940, -310).sized(500, 190)  # fmt: skip
    g.note(
        "**No guarantee.** This lowers the risk of getting a training picture back. It does not rule it out, and "
        "it cannot tell you whether a picture is a copy: compare with the original if you know it, and "
        "judge by eye before you publish.\n\n"
        "Method: Han et al., *Adjusting Initial Noise to Mitigate Memorization in Text-to-Image Diffusion "
        "Models*, NeurIPS 2025, arXiv 2510.08625.",
        "What it cannot do",
    ).at(1800, -310).sized(500, 190)  # fmt: skip
    return g


def detect_and_defer() -> Graph:
    """See the basin; leave guidance out until the way out, dynamically and as in the paper's static recipe."""
    scene = Scene(batch=4)
    g, row = scene.graph, 550  # the pictures stand in one row
    detector = g.node(
        "MG_BasinEscapeDetector", **scene.wires, noise_seed=scene.seed, steps=STEPS, scheduler="normal",
    ).at(470, 0).sized(500, 340).paint("purple")  # fmt: skip
    inside = g.node("PreviewAny", "Memorized?", source=detector["memorized"]).at(470, 400).sized(240, 90)
    step = g.node("PreviewAny", "The last one leaves at step", source=detector["transition_step"])
    step.at(730, 400).sized(240, 90)
    curve = g.node("PreviewImage", "The prompt's pull, one line a picture", images=detector["plot"])
    curve.at(470, row).sized(500, 360)
    g.group("2 · Is there a basin, and where does it end?", detector, inside, step, curve, color=OURS)

    dynamic = scene.deferred(1060, 0, "Guided once it is out", mode="dynamic")
    picture = scene.picture(dynamic["latent"], 1060, row, 400, "dynamic", "Dynamic")
    g.group("3 · Dynamic", dynamic, *picture, color=OURS)

    optimizer = g.node(
        "MG_NoiseOptimizer", **scene.wires, noise_seed=scene.seed, method="batch-wise",
    ).at(1550, 0).sized(340, 450).paint("purple")  # fmt: skip
    static = scene.deferred(1930, 0, "Guided from 10 % on", mode="static", start_percent=0.1, noise=optimizer["noise"])
    summary = g.node("PreviewAny", "What the optimizer did", source=optimizer["summary"])
    summary.at(1550, row).sized(340, 260)
    picture = scene.picture(static["latent"], 1930, row, 400, "batch_wise", "Batch-wise noise, static")
    g.group("4 · Batch-wise noise, then static", optimizer, static, summary, *picture, color=OURS)

    plain = scene.plain(2420, 0)
    picture = scene.picture(plain["LATENT"], 2420, row, 400, "plain", "Plain KSampler, same seed")
    g.group("For comparison: plain KSampler", plain, *picture, color=PLAIN)

    above = -330
    g.note(
        "## Detect and defer\n\n"
        "Guidance (CFG) is what drags a picture into a memorized one. Leave it out while the pull is "
        "strong, switch it on afterwards, and the picture goes its own way.\n\n"
        "**Look at** the four pictures of each group: same prompt, same seed. With a memorized prompt the plain "
        "ones on the right look alike; the others should differ. This prompt is known for it with Stable "
        "Diffusion 1.4.",
        "Start here",
    ).at(0, above).sized(380, 210)  # fmt: skip
    g.note(
        "**Reading the curve.** A line that starts high and then falls sharply: that picture starts inside "
        "a basin, and the ring is where it leaves. Lines that start below the dashed one: an "
        "ordinary prompt, nothing to do, transition step 0.\n\n"
        "`memorized_threshold` is the dashed line. Another model or a LoRA? Run a few harmless prompts and set it a "
        "little above where their lines start. Set the same value on the sampler.\n\n"
        "This group only looks: bypass it once you know, the samplers do not need it.",
        "Is my prompt memorized?",
    ).at(470, above).sized(500, 210)  # fmt: skip
    g.note(
        "Measures while it samples; each picture is guided from its own way out.\n\n"
        "Still copies? *Lower* `drop_ratio` or *raise* `start_percent` (the latest start). "
        "The prompt is ignored? The other way round.\n\n"
        "`pre_escape_cfg` at −1 to −9 pushes away from the memorized picture and gets out sooner.",
        "Which value to turn",
    ).at(1060, above).sized(400, 210)  # fmt: skip
    g.note(
        "The other recipe of the paper: nudge the noises of the whole batch, then sample without guidance up to a "
        "fixed point. `start_percent` 0.1 is the paper's timestep 900: with 50 steps, the first five "
        "are unguided.\n\n"
        "Cheap: no gradients, hardly more memory. Still copies? *Raise* `start_percent` a little, 0.05 at a time, or "
        "`adjustment_strength` and `adjustments`. Other sizes than 512 × 512: `sharpness_radius` grows with the "
        "side of the picture (768: 75).",
        "A fixed recipe",
    ).at(1550, above).sized(560, 210)  # fmt: skip
    g.note(
        "**No guarantee.** All this lowers the risk of getting a training picture back. It does not rule it out: "
        "compare with the original if you know it, and judge by eye before you publish.\n\n"
        "Methods: Jain et al., CVPR 2025, arXiv 2411.16738; Han et al., NeurIPS 2025, arXiv 2510.08625.",
        "What it cannot do",
    ).at(2420, above).sized(400, 210)  # fmt: skip
    return g


WORKFLOWS = {
    "Per-sample noise": per_sample_noise,
    "Detect and defer": detect_and_defer,
    "Check a batch for copies": check_a_batch,
    "Keep a LoRA from copying": keep_a_lora,
}
