"""The templates that watch the attraction basin: where the prompt pulls an image towards a memorized one."""

from support import lab_strengths
from tools.assets.templates.template import GAP, OURS, ROW, Template


def simple_guard() -> Template:
    """The first step for everybody: one node between the model and the sampler that is there already."""
    t = Template(batch=4, lab_prompt="The Silent Engine, a purple square")
    guard = t.graph.node("MG_Guard", model=t.model, clip=t.clip, strength="normal")
    guard.at(470, 0).sized(400, 0).paint("blue")
    sampler = t.graph.node("KSampler", "KSampler with the guarded model", **{**t.sampling, "model": guard})
    sampler.at(920, 0).sized(320, 262)
    image = t.decoded(sampler["LATENT"], 920 + 320 + GAP, 0, 400, "guarded", "With the guard")
    t.frame("2 · The guard, and the sampler that you already use", guard, sampler, *image, color=OURS)
    plain = t.comparison(1740)
    t.poster = (guard, {"KSampler": plain[1], "With the guard": image[1]})
    t.notes("simple-guard", 0, 470, 920, 1740)
    return t


def dynamic_deferral() -> Template:
    """The smallest change to a workflow: our sampler instead of KSampler, measuring while it samples."""
    t = Template(batch=4, lab_prompt="The Silent Engine, a purple square")
    sampler = t.deferred(470, "Guided after the escape", mode="dynamic")
    t.lab(sampler, **lab_strengths.DEFERRED)
    image = t.decoded(sampler["latent"], 470 + 400 + GAP, 0, 400, "dynamic", "Dynamic deferral")
    t.frame("2 · Guidance waits until the image has escaped", sampler, *image, color=OURS)
    plain = t.comparison(1410)
    t.poster = (sampler, {"KSampler": plain[1], "Dynamic deferral": image[1]})
    t.notes("dynamic-deferral", 0, 470, 920, 1410)
    return t


def detect_first() -> Template:
    """Is the prompt memorized? Measure it beside an ordinary prompt before sampling, and use what was found."""
    t = Template(batch=4, lab_prompt="Harbour at Dawn, a red disc")
    detector = t.detector(0, "Is it memorized?")
    t.lab(detector, **lab_strengths.DETECTOR)
    t.frame("2 · Is the prompt memorized?", detector, color=OURS)

    sampler = t.deferred(960, "Guided after the escape", mode="dynamic", curve=detector["curve"])
    t.lab(sampler, **lab_strengths.DEFERRED)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, 400, "detected", "Guided after the escape")
    t.frame("3 · Sample with what was found", sampler, *image, color=OURS)
    plain = t.comparison(1900)
    t.poster = (detector, {"KSampler": plain[1], "Guided after the escape": image[1]})

    ordinary = t.text("An ordinary prompt", "a photo of a cat sleeping on a sofa", "a disc").at(0, ROW)
    other = t.detector(ROW, "The same for an ordinary prompt", positive=ordinary)
    t.lab(other, **lab_strengths.DETECTOR)
    plot = t.graph.node("MG_PlotCurve", "Both in one plot", curve=detector["curve"], curve_2=other["curve"])
    plot.at(960, ROW).sized(400, 0)
    drawn = t.graph.node("PreviewImage", "The prompt's pull: yours first, then the ordinary one", images=plot)
    drawn.at(1410, ROW).sized(560, 400)
    title = "4 · Which pull is ordinary? (bypass this group once you know)"
    t.frame(title, ordinary, other, plot, drawn, color=OURS, row=1)
    t.notes("detect-first", 0, 470, 960, 1900)
    return t
