"""The workflows in `workflows/`, for tools/make_workflow.py.

.host/python tools/make_workflow.py tools/example_workflows.py --thumbnails
"""

from __future__ import annotations

from make_workflow import Graph, Link, Node

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the host's own templates
PROMPT = "Mothers influence on her young hippo"  # a caption that SD 1.4 is known to have memorized
SEED, STEPS, CFG, SIDE = 1, 50, 7.0, 512
SAMPLING = {"sampler_name": "euler", "scheduler": "normal"}
OURS, PLAIN, COMMON = "#3f789e", "#8a6d3b", "#999999"  # groups: what this pack does, without it, both


class Scene:
    """What every workflow starts with: model, prompts, latent and one seed for all, in the first column."""

    def __init__(self, batch: int, prompt: str = PROMPT):
        self.graph = g = Graph()
        loader = g.node("CheckpointLoaderSimple", "Model", ckpt_name=CHECKPOINT).at(0, 0).sized(380, 98)
        self.model, clip, self.vae = loader[0, 1, 2]
        self.positive = g.node("CLIPTextEncode", "Prompt", clip=clip, text=prompt)
        self.positive.at(0, 150).sized(380, 120).paint("green")
        self.negative = g.node("CLIPTextEncode", "Negative prompt (empty)", clip=clip, text="")
        self.negative.at(0, 320).sized(380, 100).paint("red")
        self.latent = g.node("EmptyLatentImage", "Size", width=SIDE, height=SIDE, batch_size=batch)
        self.latent.at(0, 470).sized(380, 106)
        self.seed = g.node("PrimitiveInt", "Seed for everything", value=SEED).at(0, 630).sized(380, 82)
        self.seed.paint("yellow")
        g.group(
            "1 · Model, prompt, seed",
            loader, self.positive, self.negative, self.latent, self.seed, color=COMMON,
        )  # fmt: skip

    @property
    def wires(self) -> dict[str, object]:
        return {
            "model": self.model,
            "positive": self.positive,
            "negative": self.negative,
            "latent_image": self.latent,
        }

    def plain(self, x: float, y: float) -> Node:
        """The host's KSampler."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING}
        return self.graph.node("KSampler", "Plain KSampler", **wires).at(x, y).sized(320, 262)

    def deferred(self, x: float, y: float, title: str, **values: object) -> Node:
        """Our sampler; `values`: the inputs that KSampler does not have."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING, **values}
        node = self.graph.node("MG_DeferredCFGKSampler", title, **wires).at(x, y).sized(320, 480)
        return node.paint("blue")

    def picture(self, latent: Link, x: float, y: float, side: float, prefix: str, title: str) -> list[Node]:
        """Decoded and saved, the decoder above the picture."""
        decoded = self.graph.node("VAEDecode", samples=latent, vae=self.vae).at(x, y).sized(side, 46)
        saved = self.graph.node("SaveImage", title, images=decoded, filename_prefix=f"memorization_guard/{prefix}")
        return [decoded, saved.at(x, y + 96).sized(side, side + 90)]


def per_sample_noise() -> Graph:
    """A noise from which the prompt does not lead into the memorized picture, beside the plain run."""
    scene = Scene(batch=1)
    g = scene.graph
    optimizer = g.node(
        "MG_NoiseOptimizer", **scene.wires, noise_seed=scene.seed, method="per-sample",
    ).at(470, 0).sized(380, 450).paint("purple")  # fmt: skip
    summary = g.node("PreviewAny", "What the optimizer reached", source=optimizer["summary"])
    summary.at(470, 510).sized(380, 202)
    g.group("2 · Find a better starting noise", optimizer, summary, color=OURS)

    sampler = scene.deferred(940, 0, "Sampler (off = KSampler's own steps)", mode="off", noise=optimizer["noise"])
    picture = scene.picture(sampler["latent"], 1310, 0, 400, "per_sample", "With the optimized noise")
    g.group("3 · Sample from it, guided from the first step", sampler, *picture, color=OURS)

    plain = scene.plain(1800, 0)
    beside = scene.picture(plain["LATENT"], 2170, 0, 400, "plain", "Without")
    g.group("For comparison: same prompt, same seed", plain, *beside, color=PLAIN)

    g.note(
        "## Per-sample noise\n\n"
        "Some prompts were seen so often in training that the model answers with (nearly) the same picture, "
        "whatever the seed. This one is known for it with Stable Diffusion 1.4. Type your own "
        "prompt, and press Run.\n\n"
        "**Look at** the two pictures: with the optimized noise, and without. Try a few seeds: with a memorized "
        "prompt the one without hardly changes.",
        "Start here",
    ).at(0, -310).sized(380, 190)  # fmt: skip
    g.note(
        "**Which value to turn**\n\n"
        "`target_magnitude` is how quiet the prompt's pull has to become. The text below tells what was reached. "
        "Still the same picture? *Lower* it, in steps of 0.001. NOT REACHED? Raise `max_iterations`.\n\n"
        "A prompt that was already quiet keeps its noise: both pictures are then the same.\n\n"
        "Out of memory? Set `method` to `search`: no gradients.",
        "The one dial",
    ).at(470, -310).sized(380, 190)  # fmt: skip
    g.note(
        "`mode` is **off** here: the sampler does exactly what KSampler does, but lets you connect a noise. "
        "Keep the model, prompts and latent the same as on the optimizer; the noise was made for them.\n\n"
        "`std` in the summary should stay near 1. When it drifts far above, the picture gets harsh and follows "
        "the prompt less: lower `learning_rate`.",
        "About the sampler",
    ).at(940, -310).sized(500, 190)  # fmt: skip
    g.note(
        "**No guarantee.** This lowers the risk of getting a training picture back. It does not rule it out, and "
        "it cannot tell you whether a picture is a copy: compare with the original if you know it, and "
        "judge by eye before you publish.\n\n"
        "Method: Han et al., *Adjusting Initial Noise to Mitigate Memorization in Text-to-Image Diffusion "
        "Models*, NeurIPS 2025, arXiv 2510.08625.",
        "What it cannot do",
    ).at(1800, -310).sized(500, 190)  # fmt: skip
    return g


def detect_and_defer() -> Graph:
    """See the basin; leave guidance out until the way out, dynamically and as in the paper's static recipe."""
    scene = Scene(batch=4)
    g, row = scene.graph, 550  # the pictures stand in one row
    detector = g.node(
        "MG_BasinEscapeDetector", **scene.wires, noise_seed=scene.seed, steps=STEPS, scheduler="normal",
    ).at(470, 0).sized(500, 340).paint("purple")  # fmt: skip
    inside = g.node("PreviewAny", "Memorized?", source=detector["memorized"]).at(470, 400).sized(240, 90)
    step = g.node("PreviewAny", "The last one leaves at step", source=detector["transition_step"])
    step.at(730, 400).sized(240, 90)
    curve = g.node("PreviewImage", "The prompt's pull, one line a picture", images=detector["plot"])
    curve.at(470, row).sized(500, 360)
    g.group("2 · Is there a basin, and where does it end?", detector, inside, step, curve, color=OURS)

    dynamic = scene.deferred(1060, 0, "Guided once it is out", mode="dynamic")
    picture = scene.picture(dynamic["latent"], 1060, row, 400, "dynamic", "Dynamic")
    g.group("3 · Dynamic", dynamic, *picture, color=OURS)

    optimizer = g.node(
        "MG_NoiseOptimizer", **scene.wires, noise_seed=scene.seed, method="batch-wise",
    ).at(1550, 0).sized(340, 450).paint("purple")  # fmt: skip
    static = scene.deferred(1930, 0, "Guided from 10 % on", mode="static", start_percent=0.1, noise=optimizer["noise"])
    summary = g.node("PreviewAny", "What the optimizer did", source=optimizer["summary"])
    summary.at(1550, row).sized(340, 260)
    picture = scene.picture(static["latent"], 1930, row, 400, "batch_wise", "Batch-wise noise, static")
    g.group("4 · Batch-wise noise, then static", optimizer, static, summary, *picture, color=OURS)

    plain = scene.plain(2420, 0)
    picture = scene.picture(plain["LATENT"], 2420, row, 400, "plain", "Plain KSampler, same seed")
    g.group("For comparison: plain KSampler", plain, *picture, color=PLAIN)

    above = -330
    g.note(
        "## Detect and defer\n\n"
        "Guidance (CFG) is what drags a picture into a memorized one. Leave it out while the pull is "
        "strong, switch it on afterwards, and the picture goes its own way.\n\n"
        "**Look at** the four pictures of each group: same prompt, same seed. With a memorized prompt the plain "
        "ones on the right look alike; the others should differ. This prompt is known for it with Stable "
        "Diffusion 1.4.",
        "Start here",
    ).at(0, above).sized(380, 210)  # fmt: skip
    g.note(
        "**Reading the curve.** A line that starts high and then falls sharply: that picture starts inside "
        "a basin, and the ring is where it leaves. Lines that start below the dashed one: an "
        "ordinary prompt, nothing to do, transition step 0.\n\n"
        "`memorized_threshold` is the dashed line. Another model or a LoRA? Run a few harmless prompts and set it a "
        "little above where their lines start. Set the same value on the sampler.\n\n"
        "This group only looks: bypass it once you know, the samplers do not need it.",
        "Is my prompt memorized?",
    ).at(470, above).sized(500, 210)  # fmt: skip
    g.note(
        "Measures while it samples; each picture is guided from its own way out.\n\n"
        "Still copies? *Lower* `drop_ratio` or *raise* `start_percent` (the latest start). "
        "The prompt is ignored? The other way round.\n\n"
        "`pre_escape_cfg` at −1 to −9 pushes away from the memorized picture and gets out sooner.",
        "Which value to turn",
    ).at(1060, above).sized(400, 210)  # fmt: skip
    g.note(
        "The other recipe of the paper: nudge the noises of the whole batch, then sample without guidance up to a "
        "fixed point. `start_percent` 0.1 is the paper's timestep 900: with 50 steps, the first five "
        "are unguided.\n\n"
        "Cheap: no gradients, hardly more memory. Still copies? *Raise* `start_percent` a little, 0.05 at a time, or "
        "`adjustment_strength` and `adjustments`. Other sizes than 512 × 512: `sharpness_radius` grows with the "
        "side of the picture (768: 75).",
        "A fixed recipe",
    ).at(1550, above).sized(560, 210)  # fmt: skip
    g.note(
        "**No guarantee.** All this lowers the risk of getting a training picture back. It does not rule it out: "
        "compare with the original if you know it, and judge by eye before you publish.\n\n"
        "Methods: Jain et al., CVPR 2025, arXiv 2411.16738; Han et al., NeurIPS 2025, arXiv 2510.08625.",
        "What it cannot do",
    ).at(2420, above).sized(400, 210)  # fmt: skip
    return g


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


WORKFLOWS = {
    "Per-sample noise": per_sample_noise,
    "Detect and defer": detect_and_defer,
    "Check a batch for copies": check_a_batch,
}
