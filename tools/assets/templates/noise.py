"""The example workflows that adjust the initial noise."""

from __future__ import annotations

from tools.assets.example_scene import GAP, LAB_BATCH_WISE, LAB_PER_SAMPLE, OURS, Scene
from tools.assets.make_workflow import Graph

HAN = (
    "Method: Han et al., *Adjusting Initial Noise to Mitigate Memorization in Text-to-Image Diffusion Models*, "
    "NeurIPS 2025, arXiv 2510.08625."
)


def per_sample_noise() -> Graph:
    """A noise from which the prompt does not lead into the memorized picture, beside the plain run."""
    scene = Scene(batch=1, lab="Winter Orchard, a green ring")
    g = scene.graph
    optimizer = scene.optimizer(470, method="per-sample").lab(**LAB_PER_SAMPLE)
    scene.frame("2 · Find a better starting noise", optimizer, color=OURS)

    sampler = scene.deferred(960, "Sampler (off = KSampler's own steps)", mode="off", noise=optimizer["noise"])
    picture = scene.picture(sampler["latent"], 960 + 400 + GAP, 0, 400, "per_sample", "With the optimized noise")
    scene.frame("3 · Sample from it, guided from the first step", sampler, *picture, color=OURS)
    plain = scene.comparison(1900)
    g.shows(optimizer, ("KSampler", plain), ("Optimized noise", picture[1]))

    scene.note(
        "## Per-sample noise\n\n"
        "Some prompts were seen so often in training that the model answers with (nearly) the same picture, "
        "whatever the seed. This one is known for it with Stable Diffusion 1.4. Type your own "
        "prompt, and press Run.\n\n"
        "**Look at** the two pictures: with the optimized noise, and without. Try a few seeds: with a memorized "
        "prompt the one without hardly changes.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "*target_magnitude* is how quiet the prompt's pull has to become: the dashed line on the node. Still the same "
        "picture? Lower it, in steps of 0.001. NOT REACHED? Raise *max_iterations*.\n\n"
        "A prompt that was already quiet keeps its noise: both pictures are then the same.\n\n"
        "Out of memory? Set *method* to **search**: no gradients.",
        "The one dial",
        470,
        400,
    )
    scene.note(
        "*mode* is **off** here: the sampler does exactly what KSampler does, but lets you connect a noise. "
        "Keep the model, prompts and latent the same as on the optimizer; the noise was made for them.\n\n"
        "The optimizer tells when it had to inflate the noise: such a picture gets harsh and follows the prompt less. "
        "Raise the target, or set *constraint* to **sphere**.",
        "About the sampler",
        960,
        400,
    )
    scene.note(
        "**No guarantee.** This lowers the risk of getting a training picture back. It does not rule it out, and "
        "it cannot tell you whether a picture is a copy: compare with the original if you know it, and "
        f"judge by eye before you publish.\n\n{HAN}",
        "What it cannot do",
        1900,
        400,
    )
    return g


def batch_wise_noise() -> Graph:
    """The paper's cheap recipe: nudge all noises at once, and start guidance a little later."""
    scene = Scene(batch=4, lab="Letters from Lisbon, a yellow triangle")
    g = scene.graph
    optimizer = scene.optimizer(470, method="batch-wise").lab(**LAB_BATCH_WISE)
    scene.frame("2 · Nudge the noise of every picture", optimizer, color=OURS)

    sampler = scene.deferred(960, "Guided from 10 % on", mode="static", start_percent=0.1, noise=optimizer["noise"])
    sampler.lab(start_percent=0.4)
    picture = scene.picture(sampler["latent"], 960 + 400 + GAP, 0, 400, "batch_wise", "Batch-wise noise, deferred")
    scene.frame("3 · Sample from it, guided a little later", sampler, *picture, color=OURS)
    plain = scene.comparison(1900)
    g.shows(optimizer, ("KSampler", plain), ("Nudged, guided later", picture[1]))

    scene.note(
        "## Batch-wise noise, deferred start\n\n"
        "The cheap recipe of the paper: move the noises of the whole batch a little, away from where the prompt pulls "
        "sharply, then sample without guidance up to a fixed point. No gradients, hardly more memory.\n\n"
        "**Look at** the two groups of pictures: same prompt, same seed.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "The lines are how hard the prompt pulls at each picture, before each adjustment. They need not fall much: the "
        "later start does the other half.\n\n"
        "Still copies? Raise *adjustment_strength* or *adjustments*. Other sizes than 512 × 512: *sharpness_radius* "
        "grows with the side of the picture (768: 75).",
        "Which value to turn",
        470,
        400,
    )
    scene.note(
        "*start_percent* 0.1 is the paper's timestep 900: with 50 steps, the first five are unguided (blue ground) and "
        "cost half.\n\nStill copies? *Raise* it, 0.05 at a time. The prompt is ignored? *Lower* it. To let each "
        "picture find its own point, set *mode* to **dynamic**.",
        "When guidance starts",
        960,
        400,
    )
    scene.note(
        "**No guarantee.** All this lowers the risk of getting a training picture back. It does not rule it out: "
        f"compare with the original if you know it, and judge by eye before you publish.\n\n{HAN}",
        "What it cannot do",
        1900,
        400,
    )
    return g
