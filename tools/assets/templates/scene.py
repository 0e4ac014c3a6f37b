"""What every example workflow starts with, and how its groups are coloured and laid out.

A node that shows its run grows by that view, so it is the last one of its column: `ROOM` below the top of the
first row is left free for it. `lab`: what a run on the lab checkpoint needs, for thumbnails and tests.
"""

from __future__ import annotations

from tools.assets.make_workflow import Graph, Link, Node

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the host's own templates
PROMPT = "Mothers influence on her young hippo"  # a caption that SD 1.4 is known to have memorized
SEED, STEPS, CFG, SIDE = 1, 50, 7.0, 512
SAMPLING = {"sampler_name": "euler", "scheduler": "normal"}
OURS, PLAIN, COMMON = "#3f789e", "#8a6d3b", "#999999"  # groups: what this pack does, without it, both
ABOVE = -290  # notes
ROOM = 900  # from the top of the first row to that of the second
GAP = 50
# What tools/demo/methods.py found for the lab checkpoint.
LAB_DEFERRED = {"pre_escape_cfg": -1.0, "start_percent": 0.5, "memorized_threshold": 0.024}
LAB_PER_SAMPLE = {"target_magnitude": 0.015, "learning_rate": 0.03}
LAB_BATCH_WISE = {"sharpness_radius": 9.0, "adjustments": 4, "adjustment_strength": 2.0}


class Scene:
    """Model, prompts, latent and one seed for all, in the first column. `lab`: a prompt the lab model memorizes."""

    def __init__(self, batch: int, lab: str, prompt: str = PROMPT):
        self.graph = g = Graph()
        loader = g.node("CheckpointLoaderSimple", "Model", ckpt_name=CHECKPOINT).at(0, 0).sized(380, 98)
        self.model, clip, self.vae = loader.lab(ckpt_name="lab.safetensors")[0, 1, 2]
        self.clip = clip
        self.positive = self.text("Prompt", prompt, lab).at(0, 150)
        self.negative = g.node("CLIPTextEncode", "Negative prompt (empty)", clip=clip, text="")
        self.negative.at(0, 320).sized(380, 100).paint("red")
        self.latent = g.node("EmptyLatentImage", "Size", width=SIDE, height=SIDE, batch_size=batch)
        self.latent.at(0, 470).sized(380, 106).lab(width=96, height=96, batch_size=4)
        self.seed = g.node("PrimitiveInt", "Seed for everything", value=SEED).at(0, 630).sized(380, 82)
        self.seed.paint("yellow")
        self.frame(
            "1 · Model, prompt, seed", loader, self.positive, self.negative, self.latent, self.seed, color=COMMON
        )

    def frame(self, title: str, *nodes: Node, color: str, row: int = 0) -> None:
        """A group as high as its row."""
        self.graph.group(title, *nodes, color=color, bottom=ROOM * row + ROOM - 110)

    def text(self, title: str, prompt: str, lab: str) -> Node:
        """A prompt, and the one to take its place on the lab checkpoint."""
        node = self.graph.node("CLIPTextEncode", title, clip=self.clip, text=prompt)
        return node.sized(380, 120).paint("green").lab(text=lab)

    @property
    def wires(self) -> dict[str, object]:
        return {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}

    def plain(self, x: float, y: float, title: str = "Plain KSampler") -> Node:
        """The host's KSampler."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING}
        return self.graph.node("KSampler", title, **wires).at(x, y).sized(320, 262)

    def deferred(self, x: float, title: str, **values: object) -> Node:
        """Our sampler, alone in its column; `values`: the inputs that KSampler does not have."""
        wires = {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, **SAMPLING, **values}
        node = self.graph.node("MG_DeferredCFGKSampler", title, **wires).at(x, 0).sized(400, 0)
        return node.paint("blue")

    def optimizer(self, x: float, y: float = 0, **values: object) -> Node:
        """Our optimizer, alone in its column."""
        node = self.graph.node("MG_NoiseOptimizer", **self.wires, noise_seed=self.seed, **values)
        return node.at(x, y).sized(400, 0).paint("purple")

    def references(self, x: float, y: float) -> Node:
        """The pictures to stay away from; what was read and left out stands on the node."""
        node = self.graph.node(
            "MG_ReferencesFromFolder",
            "Its training pictures",
            folder="training",
            metric="latent",
            vae=self.vae,
            size_of=self.latent,
        )
        return node.at(x, y).sized(400, 260).paint("purple")

    def check(self, x: float, y: float, title: str, pictures: list[Node], references: Node) -> Node:
        """Pictures beside the nearest reference."""
        node = self.graph.node(
            "MG_CopyCheck", title, images=pictures[0], references=references["references"], vae=self.vae
        )
        return node.at(x, y).sized(560, 640).paint("blue")

    def picture(self, latent: Link, x: float, y: float, side: float, prefix: str, title: str) -> list[Node]:
        """Decoded and saved, the decoder above the picture."""
        decoded = self.graph.node("VAEDecode", samples=latent, vae=self.vae).at(x, y).sized(side, 46)
        saved = self.graph.node("SaveImage", title, images=decoded, filename_prefix=f"memorization_guard/{prefix}")
        return [decoded, saved.at(x, y + 96).sized(side, side + 90)]

    def comparison(self, x: float) -> Node:
        """Sampled by KSampler, same prompt and seed, in a group of its own; returns its picture."""
        plain = self.plain(x, 0)
        picture = self.picture(plain["LATENT"], x + 320 + GAP, 0, 400, "plain", "Plain KSampler, same seed")
        self.frame("For comparison: without", plain, *picture, color=PLAIN)
        return picture[1]

    def note(self, text: str, title: str, x: float, width: float, height: float = 180) -> Node:
        """A note above the first row."""
        return self.graph.note(text, title).at(x, ABOVE).sized(width, height)
