"""The templates that know the images to stay away from."""

from support import lab_strengths
from support.frontend.workflow import Node
from tools.assets.templates.template import COMMON, GAP, OURS, ROW, Template

CAPTION = "a caption that your LoRA was trained with"
REFERENCES = "2 · What it must not copy"
WITHOUT = ("4 · The same without", "Without guidance away")


def check_a_batch() -> Template:
    """Images of a LoRA beside the images it was trained on, with an alarm where they come too close."""
    t = Template(batch=4, prompt=CAPTION, lab_prompt="Garden of Clocks, a red moon")
    references = t.references()
    t.frame(REFERENCES, references, color=OURS)

    sampler = t.plain(960)
    decoder, saved = t.decoded(sampler["LATENT"], 960, 320, 320, "checked", "All images")
    t.frame("3 · Your images", sampler, decoder, saved, color=COMMON)

    checked = t.check(1370, 0, "Beside its nearest training image", decoder, references).sized(640, 740)
    alarm = t.graph.node("PreviewAny", "Any copy? (use it to branch)", source=checked["is_copy"])
    alarm.at(2060, 0).sized(300, 90)
    t.frame("4 · Too close?", checked, alarm, color=OURS)
    t.poster = (checked, {"A model's images": saved, "Beside the nearest": checked})
    t.notes("check-a-batch", 0, 470, 1370, 1820)
    return t


def keep_a_lora() -> Template:
    """A LoRA steered away from the images it was trained on, beside the plain run, both checked."""
    t = Template(batch=4, prompt=CAPTION, lab_prompt="Velvet Meridian, a purple triangle")
    _steered_and_plain(t, _lora(t))
    t.notes("keep-a-lora", 0, 960, 1410, 2270)
    return t


def recommended() -> Template:
    """The benchmark's best: steered away from the images in a folder, and only where the prompt pulls."""
    t = Template(batch=4, prompt="the prompt of an image you must not copy", lab_prompt="Harbour at Dawn, a red disc")
    references = t.references()
    t.frame(REFERENCES, references, color=OURS)
    _steered_and_plain(t, references, memorized_threshold=0.02)
    t.notes("recommended", 0, 960, 1410, 2270)
    return t


def everything() -> Template:
    """References, guidance away from them, deferred guidance towards the prompt, and a check of the images."""
    t = Template(batch=4, prompt=CAPTION, lab_prompt="Paper Mountain, a red ring")
    references = _lora(t)
    own = t.model
    guided = t.guidance(references)
    noise = t.optimizer(470, ROW, "Noise Optimizer (switch on: Ctrl+B)", method="search").bypass()
    t.frame("5 · If copies remain: a better noise", noise, color=OURS, row=1)
    sampler = t.deferred(1410, "Guided after the escape", mode="dynamic", noise=noise["noise"])
    t.lab(sampler, **lab_strengths.DEFERRED)
    shown = t.decoded(sampler["latent"], 1860, 0, 400, "everything", "With everything on")
    t.frame("3 · Away from the references, guided after the escape", guided, sampler, *shown, color=OURS)
    t.model = own
    beside = t.comparison(2350, *WITHOUT)
    _checks(t, references, shown, beside)
    t.poster = (sampler, {"KSampler": beside[1], "With everything on": shown[1]})
    t.notes("everything", 0, 960, 1410, 2350)
    return t


def _lora(t: Template) -> Node:
    """A place for a LoRA, and its training images below it."""
    lora = t.graph.node("LoraLoaderModelOnly", "Your LoRA (switch on: Ctrl+B)", model=t.model, strength_model=1.0)
    lora.at(470, 0).sized(400, 82).bypass()
    t.model = lora
    references = t.references(190)
    t.frame("2 · The LoRA, and what it must not copy", lora, references, color=OURS)
    return references


def _steered_and_plain(t: Template, references: Node, **values: object) -> None:
    """KSampler on the model guided away from the references and on the model itself, and both checked."""
    own = t.model
    guided = t.guidance(references, **values)
    steered = t.plain(1410, "KSampler on the guided model")
    shown = t.decoded(steered["LATENT"], 1780, 0, 400, "steered", "Steered away")
    t.frame("3 · Steered away from them", guided, steered, *shown, color=OURS)
    t.model = own
    beside = t.comparison(2270, *WITHOUT)
    _checks(t, references, shown, beside)
    t.poster = (guided, {"KSampler": beside[1], "AMG Guidance": shown[1]})


def _checks(t: Template, references: Node, shown: tuple[Node, Node], beside: tuple[Node, Node]) -> None:
    """Both batches, checked, in the second row."""
    checks = [
        t.check(960, ROW, "Check: with", shown[0], references),
        t.check(960 + 560 + GAP, ROW, "Check: without", beside[0], references),
    ]
    t.frame("Beside the nearest training image", *checks, color=OURS, row=1)
