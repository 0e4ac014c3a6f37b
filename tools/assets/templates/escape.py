"""The templates that watch the attraction basin: where the prompt pulls an image towards a memorized one."""

from benchmarks.lab.methods import CALIBRATED_ON
from support import lab_strengths
from tools.assets.templates.template import GAP, LEFT, OURS, PROMPT, ROW, Template

LAB_PROMPT = "Marble Horizon, a fish"
REWORDINGS = "a mother hippo teaches her calf\na young hippo beside its mother"
LAB_REWORDINGS = "a fish\na fish at the horizon"


def simple_guard() -> Template:
    """The first step for everybody: one node between the model and the sampler that is there already."""
    t = Template(4, "The Silent Engine, a purple square", LAB_PROMPT)
    guard = t.graph.node("MG_Guard", model=t.model, clip=t.clip, strength="normal")
    guard.at(LEFT, 0).sized(400, 0).paint("blue")
    t.on_lab.append((guard.id, "ordinary_prompts", CALIBRATED_ON.replace("\n", "; ")))  # the lab knows no other words
    sampler = t.graph.node("KSampler", **{**t.sampling, "model": guard}).at(920, 0).sized(320, 262)
    image = t.decoded(sampler["LATENT"], 920 + 320 + GAP, 0, "guarded", "Save Image: with the guard")
    t.frame("2 · The guard, and the sampler that you already use", guard, sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (guard, {"KSampler": plain[1], "With the guard": image[1]})
    t.notes("simple-guard", 0, LEFT, 920, 1370)
    return t


def dynamic_deferral() -> Template:
    """The smallest change to a workflow: our sampler instead of KSampler, measuring while it samples."""
    t = Template(4, "The Silent Engine, a purple square", LAB_PROMPT)
    sampler = t.deferred(LEFT, mode="dynamic", memorized_threshold=t.calibrated())
    t.tune(sampler, **lab_strengths.DEFERRED)
    image = t.decoded(sampler["latent"], LEFT + 400 + GAP, 0, "dynamic", "Save Image: dynamic deferral")
    t.frame("2 · Guidance waits until the image has escaped", sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (sampler, {"KSampler": plain[1], "Dynamic deferral": image[1]})
    t.notes("dynamic-deferral", 0, LEFT, 920, 1370)
    return t


def detect_first() -> Template:
    """Is the prompt memorized? Measure it beside an ordinary prompt before sampling, and use what was found."""
    t = Template(4, "Harbour at Dawn, a red disc", LAB_PROMPT)
    threshold = t.calibrated()
    detector = t.detector(0, memorized_threshold=threshold)
    t.tune(detector, **lab_strengths.DETECTOR)
    t.frame("2 · Is the prompt memorized?", detector, color=OURS)

    sampler = t.deferred(960, mode="dynamic", curve=detector["curve"], memorized_threshold=threshold)
    t.tune(sampler, **lab_strengths.DEFERRED)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "detected", "Save Image: guided after the escape")
    t.frame("3 · Sample with what was found", sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (detector, {"KSampler": plain[1], "Guided after the escape": image[1]})

    prompt = "a photo of a cat sleeping on a sofa"
    ordinary = t.text("CLIP Text Encode (an ordinary prompt)", prompt, "a disc", "a dog").at(0, 2 * ROW)
    title = "Basin-Escape Detector (ordinary prompt)"
    other = t.detector(2 * ROW, title, positive=ordinary, memorized_threshold=threshold)
    t.tune(other, **lab_strengths.DETECTOR)
    plot = t.graph.node("MG_PlotCurve", curve=detector["curve"], curve_2=other["curve"])
    plot.at(960, 2 * ROW).sized(400, 0)
    drawn = t.graph.node("PreviewImage", "Preview Image: your prompt, then the ordinary one", images=plot)
    drawn.at(1410, 2 * ROW).sized(560, 400)
    title = "4 · Which pull is ordinary? (bypass this group once you know)"
    t.frame(title, ordinary, other, plot, drawn, color=OURS, row=2)
    t.notes("detect-first", 0, LEFT, 960, 1410)
    return t


def words_that_pull() -> Template:
    """Which words pull towards a memorized image, and what comes out with a wording that pulls less."""
    t = Template(4, "", "", "")
    prompt = t.graph.node("PrimitiveStringMultiline", "Your prompt", value=PROMPT).at(LEFT, 0).sized(400, 120)
    t.tune(prompt, value="The Silent Engine, a purple square").on_lab.append((prompt.id, "value", LAB_PROMPT))
    t.takes(t.positive, text=prompt)
    wires = {"model": t.model, "clip": t.clip, "latent_image": t.latent, "noise_seed": t.seed}
    check = t.graph.node(
        "MG_PromptCheck", **wires, text=prompt, rewordings=REWORDINGS, memorized_threshold=t.calibrated()
    )
    check.at(LEFT, 180).sized(400, 0).paint("purple")
    t.tune(check, rewordings="a purple square").on_lab.append((check.id, "rewordings", LAB_REWORDINGS))
    best = t.graph.node("CLIPTextEncode", "CLIP Text Encode (the best wording)", clip=t.clip, text=check["best_prompt"])
    best.at(960, 0).sized(320, 90).paint("green")
    t.frame("2 · Which words pull?", prompt, check, color=OURS)
    sampler = t.graph.node("KSampler", **{**t.sampling, "positive": best}).at(960, 150).sized(320, 262)
    image = t.decoded(sampler["LATENT"], 960 + 320 + GAP, 0, "reworded", "Save Image: the best wording")
    t.frame("3 · Sample with the wording that pulls least", best, sampler, *image, color=OURS)
    plain = t.comparison(group="For comparison: your own wording")
    t.poster = (check, {"Your wording": plain[1], "The best wording": image[1]})
    t.notes("words-that-pull", 0, LEFT, 960, 1410)
    return t
