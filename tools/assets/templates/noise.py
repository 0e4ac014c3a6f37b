"""The templates that adjust the initial noise."""

from support import lab_strengths
from tools.assets.templates.template import GAP, OURS, Template


def per_sample_noise() -> Template:
    """A noise from which the prompt does not lead into the memorized image, beside the plain run."""
    t = Template(batch=1, lab_prompt="Winter Orchard, a green ring")
    optimizer = t.optimizer(470, method="per-sample")
    t.lab(optimizer, **lab_strengths.PER_SAMPLE)
    t.frame("2 · Find a better starting noise", optimizer, color=OURS)

    sampler = t.deferred(960, "Sampler (off = KSampler's own steps)", mode="off", noise=optimizer["noise"])
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, 400, "per_sample", "With the optimized noise")
    t.frame("3 · Sample from it, guided from the first step", sampler, *image, color=OURS)
    plain = t.comparison(1900)
    t.poster = (optimizer, {"KSampler": plain[1], "Optimized noise": image[1]})
    t.notes("per-sample-noise", 0, 470, 960, 1900)
    return t


def batch_wise_noise() -> Template:
    """The paper's cheaper method: move all noises at once, and start guidance a little later."""
    t = Template(batch=4, lab_prompt="Letters from Lisbon, a yellow triangle")
    optimizer = t.optimizer(470, method="batch-wise")
    t.lab(optimizer, **lab_strengths.BATCH_WISE)
    t.frame("2 · Move the noise of every image", optimizer, color=OURS)

    sampler = t.deferred(960, "Guided from 10 % on", mode="static", start_percent=0.1, noise=optimizer["noise"])
    t.lab(sampler, **lab_strengths.BATCH_WISE_START)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, 400, "batch_wise", "Batch-wise noise, deferred")
    t.frame("3 · Sample from it, guided a little later", sampler, *image, color=OURS)
    plain = t.comparison(1900)
    t.poster = (optimizer, {"KSampler": plain[1], "Moved, guided later": image[1]})
    t.notes("batch-wise-noise", 0, 470, 960, 1900)
    return t
