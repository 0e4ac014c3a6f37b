"""The templates that know the images to stay away from."""

from support import lab_strengths
from support.frontend.workflow import Node
from tools.assets.templates.template import COMMON, GAP, LEFT, OURS, PLAIN, ROW, Template

CAPTION = "a caption that your LoRA was trained with"
LAB_CAPTION = "Echo Valley, a cake"
REFERENCES = "2 · What it must not copy"
MIRRORED = "mirrored.png"  # a training image of the lab, in the input folder of the server that makes the thumbnails
CHECKED, CLEAN = "4 · Too close?", "Save Image: no alarm"


def check_finished_images() -> Template:
    """Images that exist already, from any program, beside the images that they must not copy."""
    t = Template(0)
    loaded = t.graph.node("LoadImage", image="example.png").at(0, 190).sized(380, 400)
    t.on_lab.append((loaded.id, "image", MIRRORED))
    t.frame("1 · Your image, and a VAE to compare it with", *map(Node, t.graph.nodes), color=COMMON)
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


def check_a_batch() -> Template:
    """Images of a LoRA beside the images it was trained on, with an alarm where they come too close."""
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
    """A LoRA steered away from the images it was trained on, beside the plain run, both checked."""
    t = Template(4, "Velvet Meridian, a purple triangle", LAB_CAPTION, CAPTION)
    _steered_and_plain(t, _lora(t))
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
    """References, guidance away from them, deferred guidance towards the prompt, and a check of the images."""
    t = Template(4, "Paper Mountain, a red ring", LAB_CAPTION, CAPTION)
    references = _lora(t)
    own, threshold = t.model, t.calibrated()
    guided = t.guidance(references)
    noise = t.optimizer(2 * ROW, "Noise Optimizer (switch on: Ctrl+B)", method="search").bypass()
    t.frame("5 · If copies remain: a better noise", noise, color=OURS, row=2)
    sampler = t.deferred(1410, mode="dynamic", noise=noise["noise"], memorized_threshold=threshold)
    t.tune(sampler, **lab_strengths.DEFERRED)
    shown = t.decoded(sampler["latent"], 1860, 0, "everything", "Save Image: with everything on")
    t.frame("3 · Away from the references, guided after the escape", guided, sampler, *shown, color=OURS)
    t.model = own
    beside = _checked_and_plain(t, references, shown, 2310)
    t.poster = (sampler, {"KSampler": beside[1], "With everything on": shown[1]})
    t.notes("everything", 0, 960, 1410, 2310)
    return t


def _lora(t: Template) -> Node:
    """A place for a LoRA, and its training images below it."""
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
