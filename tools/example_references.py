"""The example workflows that know pictures to stay away from."""

from __future__ import annotations

from example_scene import COMMON, OURS, PLAIN, Scene
from make_workflow import Graph


def check_a_batch() -> Graph:
    """Pictures of a LoRA beside the pictures it was trained on, with an alarm where they come too close."""
    scene = Scene(batch=4, prompt="a caption that your LoRA was trained with")
    g = scene.graph
    references = g.node(
        "MG_ReferencesFromFolder", "Training pictures",
        folder="training", metric="latent", vae=scene.vae, size_of=scene.latent,
    ).at(470, 0).sized(400, 260).paint("purple")  # fmt: skip
    report = g.node("PreviewAny", "What was read, left out, and occurs twice", source=references["report"])
    report.at(470, 330).sized(400, 380)
    g.group("2 · What it must not copy", references, report, color=OURS)

    sampler = scene.plain(960, 0)
    decoded = g.node("VAEDecode", samples=sampler["LATENT"], vae=scene.vae).at(960, 330).sized(320, 46)
    saved = g.node("SaveImage", "All pictures", images=decoded, filename_prefix="memorization_guard/checked")
    saved.at(960, 430).sized(320, 280)
    g.group("3 · Your pictures", sampler, decoded, saved, color=COMMON)

    checked = g.node(
        "MG_CopyCheck", "Beside its nearest training picture", images=decoded, references=references["references"],
        vae=scene.vae,
    ).at(1370, 0).sized(560, 710).paint("blue")  # fmt: skip
    summary = g.node("PreviewAny", "In words", source=checked["summary"]).at(1960, 0).sized(380, 300)
    alarm = g.node("PreviewAny", "Any copy? (to branch on)", source=checked["is_copy"]).at(1960, 370).sized(380, 90)
    g.group("4 · Too close?", checked, summary, alarm, color=OURS)

    g.note(
        "## Check a batch for copies\n\n"
        "Does your LoRA, or your fine-tuned checkpoint, hand back the pictures it was trained on?\n\n"
        "1. Copy its training pictures, with their caption files, into ComfyUI's `input` folder, press **R** and "
        "choose the folder in group 2.\n2. Load your model (add Load LoRA behind it), type a training caption, "
        "press Run.",
        "Start here",
    ).at(0, -310).sized(380, 190)  # fmt: skip
    g.note(
        "The pictures are cut to the size of the latent on the left, because latents are compared. For copies that "
        "are cropped or edited, set `metric` to **descriptor** and connect **Load Copy Detector (SSCD)**.\n\n"
        "Read the report: a caption or a picture that occurs many times is what a model memorizes first.",
        "About the references",
    ).at(470, -310).sized(400, 190)  # fmt: skip
    g.note(
        "Red beyond the white mark: an alarm. **Which value to turn:** `latent_threshold` (with a descriptor: "
        "`threshold`). Lower finds more, with more false alarms. Run a few harmless prompts and set it above what "
        "they give.\n\nCopy Check needs nothing behind it: put it at the end of any workflow of yours.",
        "Reading the result",
    ).at(1370, -310).sized(560, 190)  # fmt: skip
    g.note(
        "**No guarantee either way.** Only the pictures in the folder are known. One without an alarm can be a copy of "
        "something else, and an alarm can be false: compare by eye before you publish.",
        "What it cannot do",
    ).at(1960, -310).sized(380, 190)  # fmt: skip
    return g


def keep_a_lora() -> Graph:
    """A LoRA steered away from the pictures it was trained on, beside the plain run, both checked."""
    scene = Scene(batch=4, prompt="a caption that your LoRA was trained with")
    g = scene.graph
    lora = g.node("LoraLoaderModelOnly", "Your LoRA (switch on: Ctrl+B)", model=scene.model, strength_model=1.0)
    lora.at(470, 0).sized(400, 82).bypass()
    references = g.node(
        "MG_ReferencesFromFolder", "Its training pictures",
        folder="training", metric="latent", vae=scene.vae, size_of=scene.latent,
    ).at(470, 150).sized(400, 260).paint("purple")  # fmt: skip
    report = g.node("PreviewAny", "What was read, left out, and occurs twice", source=references["report"])
    report.at(470, 480).sized(400, 240)
    g.group("2 · The LoRA, and what it must not copy", lora, references, report, color=OURS)

    guided = g.node("MG_AMGGuidance", model=lora, references=references["references"], vae=scene.vae)
    guided.at(960, 0).sized(380, 330).paint("purple")
    scene.model = guided
    steered = scene.plain(960, 400)
    steered.record["title"] = "KSampler on the guided model"
    shown = scene.picture(steered["LATENT"], 1400, 0, 380, "steered", "Steered away")
    g.group("3 · Steered away from them", guided, steered, *shown, color=OURS)

    scene.model = lora
    plain = scene.plain(1870, 400)
    beside = scene.picture(plain["LATENT"], 2250, 0, 380, "plain", "Without guidance away")
    g.group("4 · The same without", plain, *beside, color=PLAIN)

    checks = [
        g.node(
            "MG_CopyCheck", title, images=pictures[0], references=references["references"], vae=scene.vae,
        ).at(2720, y).sized(420, 440).paint("blue")
        for title, pictures, y in (("Check: steered away", shown, 0), ("Check: without", beside, 520))
    ]  # fmt: skip
    g.group("5 · Beside the nearest training picture", *checks, color=OURS)

    g.note(
        "## Keep a LoRA from copying its training set\n\n"
        "1. Copy the LoRA's training pictures, with their caption files, into ComfyUI's `input` folder, press **R** "
        "and choose the folder in group 2.\n2. Switch the LoRA node on (Ctrl+B) and choose your LoRA.\n3. Type one "
        "of its captions and press Run.",
        "Start here",
    ).at(0, -310).sized(380, 190)  # fmt: skip
    g.note(
        "While it samples, each picture is compared with the training pictures. One that comes too close is steered "
        "away: less guidance towards the prompt, and a push away from the picture itself. One that stays far is not "
        "touched.\n\nStill copies? *Raise* `dissimilarity` or *lower* `threshold_min`. The prompt is lost? The other "
        "way round.",
        "Which value to turn",
    ).at(960, -310).sized(400, 190)  # fmt: skip
    g.note(
        "**No guarantee.** Only the pictures in the folder are known, and only compositions are compared. Look at the "
        "check on the right, and judge by eye before you publish.\n\nMethod: Chen et al., CVPR 2024, "
        "arXiv 2404.00922.",
        "What it cannot do",
    ).at(2720, -310).sized(420, 190)  # fmt: skip
    return g
