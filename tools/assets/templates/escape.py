"""The workflows in `workflows/`, for tools/make_workflow.py.

.host/python tools/assets/make_workflow.py tools/assets/example_workflows.py --thumbnails
"""

from __future__ import annotations

from tools.assets.example_noise import batch_wise_noise, per_sample_noise
from tools.assets.example_references import check_a_batch, everything, keep_a_lora, recommended
from tools.assets.example_scene import GAP, LAB_DEFERRED, OURS, ROOM, STEPS, Scene
from tools.assets.make_workflow import Graph

HARM = (
    "**No guarantee.** All this lowers the risk of getting a training picture back. It does not rule it out: compare "
    "with the original if you know it, and judge by eye before you publish.\n\n"
)
JAIN = "Jain et al., *Classifier-Free Guidance inside the Attraction Basin May Cause Memorization*, CVPR 2025, "


def dynamic_deferral() -> Graph:
    """The smallest change to a workflow: our sampler in place of KSampler, measuring while it samples."""
    scene = Scene(batch=4, lab="The Silent Engine, a purple square")
    g = scene.graph
    sampler = scene.deferred(470, "Guided once it is out", mode="dynamic").lab(**LAB_DEFERRED)
    picture = scene.picture(sampler["latent"], 470 + 400 + GAP, 0, 400, "dynamic", "Dynamic deferral")
    scene.frame("2 · Guidance waits for the way out", sampler, *picture, color=OURS)
    plain = scene.comparison(1410)
    g.shows(sampler, ("KSampler", plain), ("Dynamic deferral", picture[1]))

    scene.note(
        "## Dynamic deferral\n\n"
        "Guidance (CFG) is what drags a picture into a memorized one. Leave it out while the pull is "
        "strong, switch it on afterwards, and the picture goes its own way.\n\n"
        "**Look at** the two groups of pictures: same prompt, same seed. With a memorized prompt the plain ones look "
        "alike; the others should differ. This prompt is known for it with Stable Diffusion 1.4.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "**Reading the curve.** One line a picture: how hard the prompt pulls. Blue ground: no guidance yet. The dot: "
        "this picture is out, guidance begins. (⇄ shows the magnitude as the papers measure it.)\n\nAn ordinary prompt "
        "begins below the dashed line and is guided from step 0: KSampler's own picture, bit for bit.",
        "What the node shows",
        470,
        400,
    )
    scene.note(
        "Still copies? Lower *drop_ratio* or raise *start_percent* (the latest start). "
        "The prompt is ignored? The other way round.\n\n"
        "*pre_escape_cfg* at −1 to −9 pushes away from the memorized picture and gets out sooner.\n\n"
        "*memorized_threshold* depends on the model: **Calibrate Thresholds** suggests yours.",
        "Which value to turn",
        920,
        400,
    )
    scene.note(f"{HARM}Method: {JAIN}arXiv 2411.16738.", "What it cannot do", 1410, 400)
    return g


def detect_first() -> Graph:
    """Is the prompt memorized at all? Look before sampling, beside an ordinary prompt, and use what was found."""
    scene = Scene(batch=4, lab="Harbour at Dawn, a red disc")
    g = scene.graph
    look = {"noise_seed": scene.seed, "steps": STEPS, "scheduler": "normal"}
    detector = g.node("MG_BasinEscapeDetector", "Is it memorized?", **scene.wires, **look)
    detector.at(470, 0).sized(400, 0).paint("purple").lab(memorized_threshold=0.024)
    scene.frame("2 · Is there a basin?", detector, color=OURS)

    sampler = scene.deferred(960, "Guided from there on", mode="dynamic", curve=detector["curve"])
    sampler.lab(**LAB_DEFERRED)
    picture = scene.picture(sampler["latent"], 960 + 400 + GAP, 0, 400, "detected", "Guided from there on")
    scene.frame("3 · Sample with what was found", sampler, *picture, color=OURS)
    plain = scene.comparison(1900)
    g.shows(detector, ("KSampler", plain), ("Guided after the escape", picture[1]))

    ordinary = scene.text("An ordinary prompt", "a photo of a cat sleeping on a sofa", "a disc").at(0, ROOM)
    wires = {**scene.wires, "positive": ordinary}
    other = g.node("MG_BasinEscapeDetector", "The same for an ordinary prompt", **wires, **look)
    other.at(470, ROOM).sized(400, 0).paint("purple").lab(memorized_threshold=0.024)
    plot = g.node("MG_PlotCurve", "Both in one picture", curve=detector["curve"], curve_2=other["curve"])
    plot.at(960, ROOM).sized(400, 0)
    drawn = g.node("PreviewImage", "The prompt's pull: yours first, then the ordinary one", images=plot)
    drawn.at(1410, ROOM).sized(560, 400)
    scene.frame("4 · How much is much? (bypass it once you know)", ordinary, other, plot, drawn, color=OURS, row=1)

    scene.note(
        "## Detect first, then sample\n\n"
        "The detector samples without guidance and watches how hard the prompt pulls. It ends as soon as every picture "
        "is out, and it tells you (a message at the top right) when the prompt is memorized.\n\n"
        "The sampler takes the way out from it (*curve*): until there it needs one model evaluation a step instead of "
        "two.",
        "Start here",
        0,
        380,
    )
    scene.note(
        "**Reading the curve.** A line that starts high and then falls sharply: that picture starts inside a basin, "
        "and the dot is where it leaves. Lines that start below the dashed one: nothing to do.\n\n"
        "*memorized* and *transition_percent* are outputs: branch on them, or feed *start_percent* of another "
        "workflow.",
        "Is my prompt memorized?",
        470,
        400,
    )
    scene.note(
        "*memorized_threshold* on the detector decides what counts as a basin. The lower row measures an ordinary "
        "prompt: set the threshold above its lines and below those of a prompt you know to be memorized. **Calibrate "
        "Thresholds** does that with a dozen prompts.\n\nDetector and sampler must see the same model, latent, seed "
        "and steps.",
        "Which value to turn",
        960,
        400,
    )
    scene.note(f"{HARM}Method: {JAIN}arXiv 2411.16738.", "What it cannot do", 1900, 400)
    return g


WORKFLOWS = {
    "Per-sample noise": per_sample_noise,
    "Batch-wise noise, deferred start": batch_wise_noise,
    "Dynamic deferral": dynamic_deferral,
    "Detect first, then sample": detect_first,
    "Recommended, where you have the pictures": recommended,
    "Keep a LoRA from copying": keep_a_lora,
    "Everything together, with a copy check": everything,
    "Check a batch for copies": check_a_batch,
}
