"""What every template starts with, how its groups are coloured and laid out, and how it runs on the small lab.

A node that shows its run grows by that view, so it is the last one of its column: `ROW` below the top of the first row
is left free for it.
"""

from __future__ import annotations

import re
from pathlib import Path

from support.frontend.page import Page
from support.frontend.workflow import Graph, Link, Node

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the host's own templates
PROMPT = "Mothers influence on her young hippo"  # a caption that SD 1.4 is known to have memorized
SEED, STEPS, CFG, SIDE = 1, 50, 7.0, 512
OURS, PLAIN, COMMON = "#3f789e", "#8a6d3b", "#999999"  # groups: what this pack does, without it, both
NOTES_TOP = -290
ROW = 900  # from the top of the first row to that of the second
GAP = 50
SAMPLERS = ("KSampler", "MG_DeferredCFGKSampler", "MG_BasinEscapeDetector")


class Template:
    """A graph with model, prompts, latent and one seed for everything in its first column.

    lab_prompt: a prompt that the small lab has memorized.
    """

    def __init__(self, batch: int, lab_prompt: str, prompt: str = PROMPT):
        self.graph = g = Graph()
        self.on_lab: list[tuple[int, str, object]] = []  # (node, widget, value) for a run on the small lab
        # What the thumbnail shows: the view of a node, and the images of others, each under a caption.
        self.poster: tuple[Node, dict[str, Node]] | None = None
        loader = g.node("CheckpointLoaderSimple", "Model", ckpt_name=CHECKPOINT).at(0, 0).sized(380, 98)
        self.model, self.clip, self.vae = loader[0, 1, 2]
        self.positive = self.text("Prompt", prompt, lab_prompt).at(0, 190)
        self.negative = g.node("CLIPTextEncode", "Negative prompt (empty)", clip=self.clip, text="")
        self.negative.at(0, 360).sized(380, 100).paint("red")
        self.latent = g.node("EmptyLatentImage", "Size", width=SIDE, height=SIDE, batch_size=batch)
        self.latent.at(0, 510).sized(380, 106)
        self.seed = g.node("PrimitiveInt", "Seed for everything", value=SEED).at(0, 670).sized(380, 82).paint("yellow")
        self.frame("1 · Model, prompt, seed", *map(Node, g.nodes), color=COMMON)
        self.lab(loader, ckpt_name="small_lab.safetensors").lab(self.latent, width=96, height=96, batch_size=4)

    def lab(self, node: Node, **values: object) -> Template:
        """Set widgets of a node for runs on the small lab; the file keeps the values for Stable Diffusion."""
        self.on_lab += [(node.id, name, value) for name, value in values.items()]
        return self

    def run_on_lab(self, page: Page, steps: int = STEPS) -> dict:
        """Run the template, which is open in the page, on the small lab; returns the history entry."""
        for node, name, value in self.on_lab:
            page.set_node(node, name, value)
        for kind in SAMPLERS:
            page.set_all(kind, "steps", steps)
        return page.queue_and_wait()

    def frame(self, title: str, *nodes: Node, color: str, row: int = 0) -> None:
        """A group as high as its row."""
        self.graph.group(title, *nodes, color=color, bottom=ROW * row + ROW - 110)

    def notes(self, name: str, *columns: float) -> None:
        """The sections of notes/<name>.md as notes above the first row, one in each of these columns."""
        text = (Path(__file__).parent / "notes" / f"{name}.md").read_text(encoding="utf-8")
        sections = re.findall(r"^# ([^\n]+)\n(.*?)(?=^# |\Z)", text, re.M | re.S)
        for x, (title, body) in zip(columns, sections, strict=True):
            self.graph.note(body.strip(), title).at(x, NOTES_TOP).sized(400 if x else 380, 180)

    def text(self, title: str, prompt: str, lab_prompt: str) -> Node:
        """A prompt, and the one that replaces it on the small lab."""
        node = self.graph.node("CLIPTextEncode", title, clip=self.clip, text=prompt).sized(380, 120).paint("green")
        self.lab(node, text=lab_prompt)
        return node

    @property
    def wires(self) -> dict[str, object]:
        return {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}

    @property
    def sampling(self) -> dict[str, object]:
        return {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, "scheduler": "normal"}

    def plain(self, x: float, title: str = "Plain KSampler") -> Node:
        return self.graph.node("KSampler", title, **self.sampling).at(x, 0).sized(320, 262)

    def deferred(self, x: float, title: str, **values: object) -> Node:
        """Our sampler, alone in its column; `values`: the inputs that KSampler does not have."""
        node = self.graph.node("MG_DeferredCFGKSampler", title, **self.sampling, **values)
        return node.at(x, 0).sized(400, 0).paint("blue")

    def optimizer(self, x: float, y: float = 0, title: str = "", **values: object) -> Node:
        """Our optimizer, alone in its column."""
        node = self.graph.node("MG_NoiseOptimizer", title, **self.wires, noise_seed=self.seed, **values)
        return node.at(x, y).sized(400, 0).paint("purple")

    def detector(self, y: float, title: str, **wires: object) -> Node:
        given = {**self.wires, "noise_seed": self.seed, "steps": STEPS, **wires}
        return self.graph.node("MG_BasinEscapeDetector", title, **given).at(470, y).sized(400, 0).paint("purple")

    def references(self, y: float = 0) -> Node:
        """The images to stay away from; the node shows what it read and left out."""
        inputs = {"folder": "training", "vae": self.vae, "size_of": self.latent}
        node = self.graph.node("MG_ReferencesFromFolder", "Its training images", **inputs)
        return node.at(470, y).sized(400, 260).paint("purple")

    def guidance(self, references: Node, **values: object) -> Node:
        """AMG Guidance away from the references; from here on, `model` is the guided one."""
        wires = {"model": self.model, "references": references["references"], "vae": self.vae}
        self.model = node = self.graph.node("MG_AMGGuidance", **wires, **values)
        return node.at(960, 0).sized(400, 0).paint("purple")

    def check(self, x: float, y: float, title: str, images: Node, references: Node) -> Node:
        wires = {"images": images, "references": references["references"], "vae": self.vae}
        return self.graph.node("MG_CopyCheck", title, **wires).at(x, y).sized(560, 640).paint("blue")

    def decoded(self, latent: Link, x: float, y: float, side: float, prefix: str, title: str) -> tuple[Node, Node]:
        """Decoded and saved, the decoder above the image."""
        decoder = self.graph.node("VAEDecode", samples=latent, vae=self.vae).at(x, y).sized(side, 46)
        saved = self.graph.node("SaveImage", title, images=decoder, filename_prefix=f"memorization_guard/{prefix}")
        return decoder, saved.at(x, y + 96).sized(side, side + 90)

    def comparison(
        self, x: float, group: str = "For comparison: without", title: str = "Plain KSampler, same seed"
    ) -> tuple[Node, Node]:
        """Sampled by KSampler with the same prompt and seed, in a group of its own; returns decoder and image."""
        plain = self.plain(x)
        image = self.decoded(plain["LATENT"], x + 320 + GAP, 0, 400, "plain", title)
        self.frame(group, plain, *image, color=PLAIN)
        return image
