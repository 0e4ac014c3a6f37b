"""The templates that adjust the initial noise."""

from support import lab_strengths
from tools.assets.templates.template import GAP, LEFT, OURS, Template


def per_sample_noise() -> Template:
    """A noise from which the prompt does not lead into the memorized image, beside the plain run."""
    t = Template(1, "Winter Orchard, a green ring", "Echo Valley, a cake")
    optimizer = t.optimizer(method="per-sample")
    t.tune(optimizer, **lab_strengths.PER_SAMPLE)
    t.frame("2 · Find a better starting noise", optimizer, color=OURS)

    sampler = t.deferred(960, mode="off", noise=optimizer["noise"])
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "per_sample", "Save Image: optimized noise")
    t.frame("3 · Sample from it, guided from the first step", sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (optimizer, {"KSampler": plain[1], "Optimized noise": image[1]})
    t.notes("per-sample-noise", 0, LEFT, 960, 1410)
    return t


def batch_wise_noise() -> Template:
    """The paper's cheaper method: move all noises at once, and start guidance a little later."""
    t = Template(4, "Letters from Lisbon, a yellow triangle", "Marble Horizon, a fish")
    optimizer = t.optimizer(method="batch-wise")
    t.tune(optimizer, **lab_strengths.BATCH_WISE)
    t.frame("2 · Move the noise of every image", optimizer, color=OURS)

    sampler = t.deferred(960, mode="static", start_percent=0.1, noise=optimizer["noise"])
    t.tune(sampler, **lab_strengths.BATCH_WISE_START)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "batch_wise", "Save Image: moved, guided later")
    t.frame("3 · Sample from it, guided a little later", sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (optimizer, {"KSampler": plain[1], "Moved, guided later": image[1]})
    t.notes("batch-wise-noise", 0, LEFT, 960, 1410)
    return t
