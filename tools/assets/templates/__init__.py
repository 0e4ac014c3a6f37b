"""The workflows in `workflows/`, by the name of their file; tools/assets/write_templates.py writes them."""

from collections.abc import Callable

from benchmarks.lab.configuration import LORA_PLAN
from benchmarks.lab.methods import CALIBRATED_ON
from lab.copies import LORA
from support import small_lab
from support.frontend.workflow import Node
from tools.assets.templates.template import CFG, COMMON, GAP, LEFT, OURS, PLAIN, ROW, SEED, SIDE, STEPS, Template
from tools.assets.templates.words_and_loras import (
    LAB_PROMPT,
    LORA_TRAINING,
    audit_loras,
    other_wording,
    words_that_pull,
)

CAPTION = "a caption that your LoRA was trained with"
LAB_CAPTION, LORA_CAPTION = "Echo Valley, a cake", "summer style, a frog"
REFERENCES = "2 · What it must not copy"
MIRRORED = "mirrored.png"  # a training image of the lab, in the input folder of the server that makes the thumbnails
KNOWN = "known.png"  # another one, as it is
CHECKED, CLEAN = "4 · Too close?", "Save Image: no alarm"


def check_finished_images() -> Template:
    t = Template(0)
    loaded = t.graph.node("LoadImage", image="example.png").at(0, 190).sized(380, 400)
    t.on_lab.append((loaded.id, "image", MIRRORED))
    t.frame("1 · Your image, and a VAE", *map(Node, t.graph.nodes), color=COMMON)
    t.latent = t.graph.node("VAEEncode", pixels=loaded, vae=t.vae).at(LEFT, 0).sized(400, 46)
    references = t.references(100)
    t.frame(REFERENCES, t.latent, references, color=OURS)
    checked = t.check(920, 0, loaded, references)
    saved = t.graph.node("SaveImage", CLEAN, images=checked["clean"], filename_prefix="memorization_guard/no alarm")
    saved.at(1610, 0).sized(400, 490)
    t.frame("3 · Too close?", checked, saved, color=OURS)
    t.poster = (checked, {"Your image": checked})
    t.notes("check-finished-images", 0, LEFT, 920, 1610)
    return t


def does_the_model_know_it() -> Template:
    """Without prompt and references; below, the threshold is measured with ordinary images."""
    t = Template(0)
    loaded = t.graph.node("LoadImage", image="example.png").at(0, 190).sized(380, 400)
    t.tune(loaded, image="training/00 Harbour at Dawn.png").on_lab.append((loaded.id, "image", KNOWN))
    t.frame("1 · Your image, and the model that made it", *map(Node, t.graph.nodes), color=COMMON)
    ordinary = t.text("CLIP Text Encode (an ordinary prompt)", "a photo of a cat sleeping on a sofa", "a disc", "a dog")
    ordinary.at(0, ROW)
    empty = t.graph.node("CLIPTextEncode", "CLIP Text Encode (empty)", clip=t.clip, text="").at(0, ROW + 170)
    empty.sized(380, 100).paint("red")
    latent = t.graph.node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=8).at(0, ROW + 320).sized(380, 106)
    t.tune(latent, width=96, height=96, batch_size=4)
    wires = {"model": t.model, "positive": ordinary, "negative": empty, "latent_image": latent}
    sampler = t.graph.node("KSampler", **wires, seed=SEED, steps=STEPS, cfg=CFG, scheduler="normal")
    sampler.at(LEFT, ROW).sized(400, 262)
    image = t.decoded(sampler["LATENT"], LEFT, ROW + 312, "ordinary", "Save Image: ordinary images", 400)
    given = {"clip": t.clip, "latent_image": latent, "images": image[0], "vae": t.vae}
    calibrate = t.graph.node("MG_Calibrate", model=t.model, **given).at(920, ROW).sized(400, 640).paint("purple")
    t.tune(calibrate, prompts="\n".join(small_lab.ordinary_prompts()))
    t.on_lab.append((calibrate.id, "prompts", CALIBRATED_ON))
    title = "The threshold for your model, from ordinary images"
    t.frame(title, ordinary, empty, latent, sampler, *image, calibrate, color=OURS, row=1)
    own = {"model": t.model, "clip": t.clip, "vae": t.vae, "images": loaded}
    check = t.graph.node("MG_PromptFreeCheck", **own, familiarity_threshold=calibrate["familiarity_threshold"])
    check.at(LEFT, 0).sized(400, 0).paint("blue")
    saved = t.graph.node("SaveImage", CLEAN, images=check["clean"], filename_prefix="memorization_guard/no alarm")
    saved.at(920, 0).sized(400, 490)
    t.frame("2 · Does the model know it?", check, saved, color=OURS)
    t.poster = (check, {"Where it is known": check})
    t.notes("does-the-model-know-it", 0, LEFT, 920, 1370)
    return t


def check_a_batch() -> Template:
    t = Template(4, "Garden of Clocks, a red moon", LAB_CAPTION, CAPTION)
    references = t.references()
    t.frame(REFERENCES, references, color=OURS)

    sampler = t.plain(920)
    decoder, saved = t.decoded(sampler["LATENT"], 920, 320, "checked", "Save Image: all of them", 320)
    t.frame("3 · Your images", sampler, decoder, saved, color=COMMON)

    checked = t.check(1290, 0, decoder, references)
    clean = t.graph.node("SaveImage", CLEAN, images=checked["clean"])
    clean.at(1980, 0).sized(320, 410)
    alarm = t.graph.node("PreviewAny", "Preview Any: a copy? (use it to branch)", source=checked["is_copy"])
    alarm.at(1980, 480).sized(320, 90)
    t.frame(CHECKED, checked, clean, alarm, color=OURS)
    t.poster = (checked, {"A model's images": saved, "Beside the nearest": checked})
    t.notes("check-a-batch", 0, LEFT, 1290, 1740)
    return t


def keep_a_lora() -> Template:
    t = Template(4, "Velvet Meridian, a purple triangle", LORA_CAPTION, CAPTION)
    _steered_and_plain(t, _lora(t))
    on_lab = {"LoraLoaderModelOnly": {"bypassed": False, "lora_name": LORA.name}, "KSampler": {"cfg": LORA_PLAN.cfg}}
    on_lab["MG_ReferencesFromFolder"] = {"folder": LORA_TRAINING}
    for node in t.graph.nodes:
        t.on_lab += [(node["id"], name, value) for name, value in on_lab.get(node["type"], {}).items()]
    t.notes("keep-a-lora", 0, 960, 1410, 2230)
    return t


def recommended() -> Template:
    """The benchmark's best: steered away from the images in a folder, and from nothing else."""
    t = Template(4, "Harbour at Dawn, a red disc", LAB_CAPTION, "the prompt of an image you must not copy")
    references = t.references()
    t.frame(REFERENCES, references, color=OURS)
    _steered_and_plain(t, references)
    t.notes("recommended", 0, 960, 1410, 2230)
    return t


def everything() -> Template:
    t = Template(4, "Paper Mountain, a red ring", LAB_CAPTION, CAPTION)
    references = _lora(t)
    own, threshold = t.model, t.calibrated()
    guided = t.guidance(references)
    noise = t.optimizer(2 * ROW, "Noise Optimizer (switch on: Ctrl+B)", method="search").bypass()
    t.frame("5 · If copies remain: a better noise", noise, color=OURS, row=2)
    sampler = t.deferred(1410, mode="dynamic", noise=noise["noise"], memorized_threshold=threshold)
    t.tune(sampler, **small_lab.DEFERRED)
    shown = t.decoded(sampler["latent"], 1860, 0, "everything", "Save Image: with everything on")
    t.frame("3 · Away from the references, guided after the escape", guided, sampler, *shown, color=OURS)
    t.model = own
    beside = _checked_and_plain(t, references, shown, 2310)
    t.poster = (sampler, {"KSampler": beside[1], "With everything on": shown[1]})
    t.notes("everything", 0, 960, 1410, 2310)
    return t


def _lora(t: Template) -> Node:
    title = "Load LoRA, yours (switch on: Ctrl+B)"
    lora = t.graph.node("LoraLoaderModelOnly", title, model=t.model, strength_model=1.0)
    lora.at(LEFT, 0).sized(400, 82).bypass()
    t.model = lora
    references = t.references(190)
    t.frame("2 · The LoRA, and what it must not copy", lora, references, color=OURS)
    return references


def _steered_and_plain(t: Template, references: Node, **values: object) -> None:
    """KSampler on the model guided away from the references and on the model itself, and both checked."""
    own = t.model
    guided = t.guidance(references, **values)
    steered = t.plain(1410)
    shown = t.decoded(steered["LATENT"], 1780, 0, "steered", "Save Image: steered away")
    t.frame("3 · Steered away from them", guided, steered, *shown, color=OURS)
    t.model = own
    beside = _checked_and_plain(t, references, shown, 2230)
    t.poster = (guided, {"KSampler": beside[1], "AMG Guidance": shown[1]})


def _checked_and_plain(t: Template, references: Node, shown: tuple[Node, Node], x: float) -> tuple[Node, Node]:
    """A check of what is shown, and KSampler's images with theirs below; returns the latter."""
    steered = t.check(x, 0, shown[0], references, "Copy Check: steered away")
    t.frame(CHECKED, steered, color=OURS)
    beside = t.comparison(group="For comparison: KSampler alone")
    alone = t.check(LEFT + 820 + GAP, ROW, beside[0], references, "Copy Check: KSampler alone")
    t.frame("KSampler alone: too close?", alone, color=PLAIN, row=1)
    return beside


def _compared(t: Template, node: Node, image: tuple[Node, Node], title: str, notes: str, x: float) -> Template:
    """The template with KSampler's images below; `x`: where its third column begins."""
    plain = t.comparison()
    t.poster = (node, {"KSampler": plain[1], title: image[1]})
    t.notes(notes, 0, LEFT, x, x + 400 + GAP)
    return t


def per_sample_noise() -> Template:
    t = Template(1, "Winter Orchard, a green ring", "Echo Valley, a cake")
    optimizer = t.optimizer(method="per-sample")
    t.tune(optimizer, **small_lab.PER_SAMPLE)
    t.frame("2 · Find a better starting noise", optimizer, color=OURS)

    sampler = t.deferred(960, mode="off", noise=optimizer["noise"])
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "per_sample", "Save Image: optimized noise")
    t.frame("3 · Sample from it, guided from the first step", sampler, *image, color=OURS)
    return _compared(t, optimizer, image, "Optimized noise", "per-sample-noise", 960)


def batch_wise_noise() -> Template:
    """The paper's cheaper method: move all noises at once, and start guidance a little later."""
    t = Template(4, "Letters from Lisbon, a yellow triangle", "Marble Horizon, a fish")
    optimizer = t.optimizer(method="batch-wise")
    t.tune(optimizer, **small_lab.BATCH_WISE)
    t.frame("2 · Move the noise of every image", optimizer, color=OURS)

    sampler = t.deferred(960, mode="static", start_percent=0.1, noise=optimizer["noise"])
    t.tune(sampler, **small_lab.BATCH_WISE_START)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "batch_wise", "Save Image: moved, guided later")
    t.frame("3 · Sample from it, guided a little later", sampler, *image, color=OURS)
    return _compared(t, optimizer, image, "Moved, guided later", "batch-wise-noise", 960)


def simple_guard() -> Template:
    """The first step for everybody: one node between the model and the sampler that is there already."""
    t = Template(4, "The Silent Engine, a purple square", LAB_PROMPT)
    guard = t.graph.node("MG_Guard", model=t.model, clip=t.clip, strength="normal")
    guard.at(LEFT, 0).sized(400, 0).paint("blue")
    t.on_lab.append((guard.id, "ordinary_prompts", CALIBRATED_ON.replace("\n", "; ")))  # the lab knows no other words
    sampler = t.graph.node("KSampler", **{**t.sampling, "model": guard}).at(920, 0).sized(320, 262)
    image = t.decoded(sampler["LATENT"], 920 + 320 + GAP, 0, "guarded", "Save Image: with the guard")
    t.frame("2 · The guard, and the sampler that you already use", guard, sampler, *image, color=OURS)
    return _compared(t, guard, image, "With the guard", "simple-guard", 920)


def dynamic_deferral() -> Template:
    """The smallest change to a workflow: our sampler instead of KSampler, measuring while it samples."""
    t = Template(4, "The Silent Engine, a purple square", LAB_PROMPT)
    sampler = t.deferred(LEFT, mode="dynamic", memorized_threshold=t.calibrated())
    t.tune(sampler, **small_lab.DEFERRED)
    image = t.decoded(sampler["latent"], LEFT + 400 + GAP, 0, "dynamic", "Save Image: dynamic deferral")
    t.frame("2 · Guidance waits until the image has escaped", sampler, *image, color=OURS)
    return _compared(t, sampler, image, "Dynamic deferral", "dynamic-deferral", 920)


def detect_first() -> Template:
    """Is the prompt memorized? Measure it beside an ordinary prompt before sampling, and use what was found."""
    t = Template(4, "Harbour at Dawn, a red disc", LAB_PROMPT)
    threshold = t.calibrated()
    detector = t.detector(0, memorized_threshold=threshold)
    t.tune(detector, **small_lab.DETECTOR)
    t.frame("2 · Is the prompt memorized?", detector, color=OURS)

    sampler = t.deferred(960, mode="dynamic", curve=detector["curve"], memorized_threshold=threshold)
    t.tune(sampler, **small_lab.DEFERRED)
    image = t.decoded(sampler["latent"], 960 + 400 + GAP, 0, "detected", "Save Image: guided after the escape")
    t.frame("3 · Sample with what was found", sampler, *image, color=OURS)
    plain = t.comparison()
    t.poster = (detector, {"KSampler": plain[1], "Guided after the escape": image[1]})

    prompt = "a photo of a cat sleeping on a sofa"
    ordinary = t.text("CLIP Text Encode (an ordinary prompt)", prompt, "a disc", "a dog").at(0, 2 * ROW)
    title = "Basin-Escape Detector (ordinary prompt)"
    other = t.detector(2 * ROW, title, positive=ordinary, memorized_threshold=threshold)
    t.tune(other, **small_lab.DETECTOR)
    plot = t.graph.node("MG_PlotCurve", curve=detector["curve"], curve_2=other["curve"])
    plot.at(960, 2 * ROW).sized(400, 0)
    drawn = t.graph.node("PreviewImage", "Preview Image: your prompt, then the ordinary one", images=plot)
    drawn.at(1410, 2 * ROW).sized(560, 400)
    title = "4 · Which pull is ordinary? (bypass this group once you know)"
    t.frame(title, ordinary, other, plot, drawn, color=OURS, row=2)
    t.notes("detect-first", 0, LEFT, 960, 1410)
    return t


TEMPLATES: dict[str, Callable[[], Template]] = {
    "Memorization Guard (Simple)": simple_guard,
    "Per-sample noise": per_sample_noise,
    "Batch-wise noise, deferred start": batch_wise_noise,
    "Dynamic deferral": dynamic_deferral,
    "Detect first, then sample": detect_first,
    "Find the words that pull": words_that_pull,
    "Another wording while it samples": other_wording,
    "Recommended, where you have the pictures": recommended,
    "Keep a LoRA from copying": keep_a_lora,
    "Everything together, with a copy check": everything,
    "Which epoch of my LoRA copies least": audit_loras,
    "Check a batch for copies": check_a_batch,
    "Check finished images": check_finished_images,
    "Does the model know this image": does_the_model_know_it,
}
