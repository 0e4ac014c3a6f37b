"""The example workflows that know pictures to stay away from."""

from __future__ import annotations

from typing import Any

from tools.assets.example_scene import COMMON, GAP, LAB_DEFERRED, OURS, PLAIN, ROOM, Scene
from tools.assets.make_workflow import Graph, Node

CAPTION = "a caption that your LoRA was trained with"
FOLDER = (
    "Copy the training pictures, with their caption files, into ComfyUI's *input* folder, press **R** and choose the "
    "folder in group 2"
)


def check_a_batch() -> Graph:
    """Pictures of a LoRA beside the pictures it was trained on, with an alarm where they come too close."""
    scene = Scene(batch=4, prompt=CAPTION, lab="Garden of Clocks, a red moon")
    g = scene.graph
    references = scene.references(470, 0)
    scene.frame("2 · What it must not copy", references, color=OURS)

    sampler = scene.plain(960, 0)
    decoded, saved = scene.picture(sampler["LATENT"], 960, 320, 320, "checked", "All pictures")
    scene.frame("3 · Your pictures", sampler, decoded, saved, color=COMMON)

    checked = scene.check(1370, 0, "Beside its nearest training picture", [decoded], references).sized(640, 740)
    alarm = g.node("PreviewAny", "Any copy? (to branch on)", source=checked["is_copy"]).at(2060, 0).sized(300, 90)
    scene.frame("4 · Too close?", checked, alarm, color=OURS)
    g.shows(checked, ("A model's pictures", saved), ("Beside the nearest", checked))

    scene.note(
        "## Check a batch for copies\n\n"
        "Does your LoRA, or your fine-tuned checkpoint, hand back the pictures it was trained on?\n\n"
        f"1. {FOLDER}.\n2. Load your model (add Load LoRA behind it), type a training caption, press Run.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "The pictures are cut to the size of the latent on the left, because latents are compared. For copies that "
        "are cropped or edited, set *metric* to **descriptor** and connect **Load Copy Detector (SSCD)**.\n\n"
        "Read what the node says: a caption or a picture that occurs many times is what a model memorizes first.",
        "About the references",
        470,
        400,
    )
    scene.note(
        "Red beyond the white mark: an alarm. **Which value to turn:** *latent_threshold* (with a descriptor: "
        "*threshold*). Lower finds more, with more false alarms. Run a few harmless prompts and set it above what "
        "they give.\n\nCopy Check needs nothing behind it: put it at the end of any workflow of yours.",
        "Reading the result",
        1370,
        400,
    )
    scene.note(
        "**No guarantee either way.** Only the pictures in the folder are known. One without an alarm can be a copy of "
        "something else, and an alarm can be false: compare by eye before you publish.",
        "What it cannot do",
        1820,
        400,
    )
    return g


def keep_a_lora() -> Graph:
    """A LoRA steered away from the pictures it was trained on, beside the plain run, both checked."""
    scene = Scene(batch=4, prompt=CAPTION, lab="Velvet Meridian, a purple triangle")
    g = scene.graph
    scene.model, references = _lora(scene)
    _steered(scene, references)

    scene.note(
        f"## Keep a LoRA from copying its training set\n\n1. {FOLDER}.\n2. Switch the LoRA node on (Ctrl+B) and choose "
        "your LoRA.\n3. Type one of its captions and press Run.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "While it samples, each picture is compared with the training pictures. One that comes too close is steered "
        "away: less guidance towards the prompt, and a push away from the picture itself. One that stays far is not "
        "touched.\n\nStill copies? Raise *dissimilarity* or lower *threshold_min*. The prompt is lost? The other "
        "way round.",
        "Which value to turn",
        960,
        400,
    )
    scene.note(
        "The lines are how close each picture is to its nearest training picture; above the dashed one it is steered. "
        "The coloured marks below tell which guidance acted in which step, the pictures which reference it was.",
        "Reading the curve",
        1410,
        400,
    )
    scene.note(
        "**No guarantee.** Only the pictures in the folder are known, and only compositions are compared. Look at the "
        "checks below, and judge by eye before you publish.\n\nMethod: Chen et al., *Towards Memorization-Free "
        "Diffusion Models*, CVPR 2024, arXiv 2404.00922.",
        "What it cannot do",
        2270,
        400,
    )
    return g


def recommended() -> Graph:
    """The benchmark's best: steered away from the works in a folder, and only where the prompt pulls."""
    scene = Scene(batch=4, prompt="the prompt of a picture you must not copy", lab="Harbour at Dawn, a red disc")
    g = scene.graph
    references = scene.references(470, 0)
    scene.frame("2 · What it must not copy", references, color=OURS)
    _steered(scene, references, memorized_threshold=0.02)

    scene.note(
        f"## Stay away from these pictures, and leave the rest alone\n\n1. {FOLDER}.\n2. Choose your checkpoint, and a "
        "size that it was made for.\n3. Type the prompt you worry about and press Run.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "A picture is steered away if **its prompt pulls as memorized ones do** (*memorized_threshold*) and it **comes "
        "too close** to one in the folder. Everything else is KSampler's, bit for bit.\n\n0.02 is for SD 1.x at 512 × "
        "512; **Calibrate Thresholds** finds your model's. A LoRA may copy without pulling: set it to 0.",
        "Which value to turn",
        960,
        400,
    )
    scene.note(
        "Of all that was compared in *docs/bench.md*, on a small model that memorizes on purpose, this left 1 copy in "
        "512, kept most of the prompt, and changed 1 of 128 ordinary pictures. Yours is another model: look at "
        "the checks.",
        "Why this one",
        1410,
        400,
    )
    scene.note(
        "**No guarantee.** Only the pictures in the folder are known, and only compositions are compared. Look at the "
        "checks below, and judge by eye before you publish.\n\nMethod: Chen et al., *Towards Memorization-Free "
        "Diffusion Models*, CVPR 2024, arXiv 2404.00922.",
        "What it cannot do",
        2270,
        400,
    )
    return g


def everything() -> Graph:
    """References, guidance away from them, deferred guidance towards the prompt, and a check of what came out."""
    scene = Scene(batch=4, prompt=CAPTION, lab="Paper Mountain, a red ring")
    g = scene.graph
    lora, references = _lora(scene)
    guided = g.node("MG_AMGGuidance", model=lora, references=references["references"], vae=scene.vae)
    guided.at(960, 0).sized(400, 0).paint("purple")
    scene.model = guided
    noise = scene.optimizer(470, ROOM, method="search").bypass()
    noise.record["title"] = "Noise Optimizer (switch on: Ctrl+B)"
    scene.frame("5 · If copies remain: a better noise", noise, color=OURS, row=1)
    sampler = scene.deferred(1410, "Guided once it is out", mode="dynamic", noise=noise["noise"]).lab(**LAB_DEFERRED)
    shown = scene.picture(sampler["latent"], 1860, 0, 400, "everything", "With everything on")
    scene.frame("3 · Away from the references, out of the basin", guided, sampler, *shown, color=OURS)
    scene.model = lora
    beside = _without(scene, 2350)
    _checks(scene, references, shown, beside, 960)
    g.shows(sampler, ("KSampler", beside[1]), ("With everything on", shown[1]))

    scene.note(
        f"## Everything together\n\n1. {FOLDER}.\n2. Switch the LoRA node on (Ctrl+B) and choose your LoRA, or load "
        "the checkpoint to be examined.\n3. Type one of the training captions and press Run.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "Two ideas, each for what the other cannot see. **AMG Guidance** knows the pictures in your folder and steers "
        "away from them. **The sampler** knows no picture: it leaves guidance out as long as the prompt pulls as "
        "memorized prompts do.\n\nEach node tells what it did. If one of them did nothing, you do not need it: bypass "
        "it (Ctrl+B).",
        "Who does what",
        960,
        400,
    )
    scene.note(
        "More than one mitigation costs more of the prompt. Copies remain? First switch the **Noise Optimizer** below "
        "on, then raise *dissimilarity*, then *start_percent*. The prompt is lost? Take them back in that order.\n\n"
        "*method* of the optimizer: **search** needs no gradients and runs on any model, **per-sample** does more.",
        "Which value to turn",
        1410,
        400,
    )
    scene.note(
        "**No guarantee.** Only the pictures in the folder are known, and only compositions are compared. Look at the "
        "checks below, and judge by eye before you publish.\n\nMethods: Chen et al., CVPR 2024, arXiv 2404.00922; Jain "
        "et al., CVPR 2025, arXiv 2411.16738; Han et al., NeurIPS 2025, arXiv 2510.08625.",
        "What it cannot do",
        2350,
        400,
    )
    return g


def _lora(scene: Scene) -> tuple[Node, Node]:
    """A place for a LoRA, and its training pictures below it."""
    title = "Your LoRA (switch on: Ctrl+B)"
    lora = scene.graph.node("LoraLoaderModelOnly", title, model=scene.model, strength_model=1.0)
    lora.at(470, 0).sized(400, 82).bypass()
    references = scene.references(470, 150)
    scene.frame("2 · The LoRA, and what it must not copy", lora, references, color=OURS)
    return lora, references


def _steered(scene: Scene, references: Node, **values: Any) -> None:
    """KSampler on the model guided away from them and on the model itself, and both checked."""
    own = scene.model
    guided = scene.graph.node("MG_AMGGuidance", model=own, references=references["references"], vae=scene.vae, **values)
    guided.at(960, 0).sized(400, 0).paint("purple")
    scene.model = guided
    steered = scene.plain(1410, 0, "KSampler on the guided model")
    shown = scene.picture(steered["LATENT"], 1780, 0, 400, "steered", "Steered away")
    scene.frame("3 · Steered away from them", guided, steered, *shown, color=OURS)
    scene.model = own
    beside = _without(scene, 2270)
    _checks(scene, references, shown, beside, 960)
    scene.graph.shows(guided, ("KSampler", beside[1]), ("AMG Guidance", shown[1]))


def _without(scene: Scene, x: float) -> list[Node]:
    """Sampled by KSampler, without guidance away; returns its pictures."""
    plain = scene.plain(x, 0)
    picture = scene.picture(plain["LATENT"], x + 320 + GAP, 0, 400, "plain", "Without guidance away")
    scene.frame("4 · The same without", plain, *picture, color=PLAIN)
    return picture


def _checks(scene: Scene, references: Node, shown: list[Node], beside: list[Node], x: float) -> None:
    """Both batches, checked, in the second row."""
    checks = [
        scene.check(x, ROOM, "Check: with", shown, references),
        scene.check(x + 560 + GAP, ROOM, "Check: without", beside, references),
    ]
    scene.frame("Beside the nearest training picture", *checks, color=OURS, row=1)
