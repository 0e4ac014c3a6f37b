"""What every template starts with, how its groups are coloured and laid out, and how it runs on the labs."""

import re
from pathlib import Path

from benchmarks.lab.methods import CALIBRATED_ON
from support.frontend.page import Page
from support.frontend.workflow import Graph, Link, Node
from support.small_lab import ordinary_prompts

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"  # the name in the host's own templates
SOURCE = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
PROMPT = "Mothers influence on her young hippo"  # a caption that SD 1.4 is known to have memorized
SEED, STEPS, CFG, SIDE = 1, 30, 7.0, 512
OURS, PLAIN, COMMON = "#3f789e", "#8a6d3b", "#999999"  # groups: what this pack does, without it, both
NOTES_TOP = -430  # wires that are led around nodes run below the notes
CHOOSE = "(choose one)"
ROW = 900  # from the top of the first row to that of the second
LEFT, GAP = 470, 50  # where the second column begins, between columns
SAMPLERS = ("KSampler", "MG_DeferredCFGKSampler", "MG_BasinEscapeDetector")


class Template:
    """A graph with model, prompts, latent and one seed for everything in its first column.

    small: a prompt that the tests' small lab has memorized. lab: one that the lab of SD's size has.
    """

    def __init__(self, batch: int, small: str = "", lab: str = "", prompt: str = PROMPT):
        self.graph = g = Graph()
        # (node, widget, value): all that the small lab needs, and what the other lab needs to run the file as it is.
        self.on_small: list[tuple[int, str, object]] = []
        self.on_lab: list[tuple[int, str, object]] = []
        # What the thumbnail shows: the view of a node, and the images of others, each under a caption.
        self.poster: tuple[Node, dict[str, Node]] | None = None
        loader = g.node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT).at(0, 0).sized(380, 98)
        offered = {"name": CHECKPOINT, "url": SOURCE + CHECKPOINT, "directory": "checkpoints"}
        loader.record["properties"] = {"models": [offered]}  # the frontend offers to download what is missing
        self.tune(loader, ckpt_name="small_lab.safetensors")
        self.on_lab.append((loader.id, "ckpt_name", "lab512.safetensors"))
        self.model, self.clip, self.vae = loader[0, 1, 2]
        if not batch:
            return
        self.positive = self.text("CLIP Text Encode (Prompt)", prompt, small, lab).at(0, 190)
        self.negative = g.node("CLIPTextEncode", "CLIP Text Encode (Negative Prompt, empty)", clip=self.clip, text="")
        self.negative.at(0, 360).sized(380, 100).paint("red")
        self.latent = g.node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=batch)
        self.latent.at(0, 510).sized(380, 106)
        self.seed = g.node("PrimitiveInt", "Seed (Int)", value=SEED).at(0, 670).sized(380, 82).paint("yellow")
        self.frame("1 · Model, prompt, seed", *map(Node, g.nodes), color=COMMON)
        self.tune(self.latent, width=96, height=96, batch_size=4)

    def tune(self, node: Node, **values: object) -> "Template":
        """Set widgets of a node for runs on the small lab; the file keeps the values for Stable Diffusion."""
        self.on_small += [(node.id, name, value) for name, value in values.items()]
        return self

    def run(self, page: Page, changes: list[tuple[int, str, object]], steps: int = STEPS) -> dict:
        """Run the template, which is open in the page, with these widgets changed; returns the history entry."""
        for node, name, value in changes:
            page.mg("setOne", node, name, value)
        for kind in SAMPLERS if steps != STEPS else ():
            page.mg("setAll", kind, "steps", steps)
        return page.queue_and_wait(1200)

    def frame(self, title: str, *nodes: Node, color: str, row: int = 0) -> None:
        self.graph.group(title, *nodes, color=color, bottom=ROW * row + ROW - 110)

    def notes(self, name: str, *columns: float) -> None:
        """The sections of notes/<name>.md as notes above the first row, one in each of these columns."""
        text = (Path(__file__).parent / "notes" / f"{name}.md").read_text(encoding="utf-8")
        sections = re.findall(r"^# ([^\n]+)\n(.*?)(?=^# |\Z)", text, re.M | re.S)
        for x, (title, body) in zip(columns, sections, strict=True):
            self.graph.note(body.strip(), title).at(x, NOTES_TOP).sized(400 if x else 380, 220)

    def text(self, title: str, prompt: str, small: str, lab: str) -> Node:
        node = self.graph.node("CLIPTextEncode", title, clip=self.clip, text=prompt).sized(380, 120).paint("green")
        if prompt:
            self.tune(node, text=small).on_lab.append((node.id, "text", lab))
        return node

    @property
    def wires(self) -> dict[str, object]:
        return {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}

    @property
    def sampling(self) -> dict[str, object]:
        return {**self.wires, "seed": self.seed, "steps": STEPS, "cfg": CFG, "scheduler": "normal"}

    def plain(self, x: float, y: float = 0, title: str = "KSampler") -> Node:
        return self.graph.node("KSampler", title, **self.sampling).at(x, y).sized(320, 262)

    def deferred(self, x: float, **values: object) -> Node:
        """Our sampler, alone in its column; `values`: the inputs that KSampler does not have."""
        node = self.graph.node("MG_DeferredCFGKSampler", **self.sampling, **values)
        return node.at(x, 0).sized(400, 0).paint("blue")

    def optimizer(self, y: float = 0, title: str = "", **values: object) -> Node:
        node = self.graph.node("MG_NoiseOptimizer", title, **self.wires, noise_seed=self.seed, **values)
        return node.at(LEFT, y).sized(400, 0).paint("purple")

    def detector(self, y: float, title: str = "", **wires: object) -> Node:
        given = {**self.wires, "noise_seed": self.seed, "steps": STEPS, **wires}
        node = self.graph.node("MG_BasinEscapeDetector", title, **given)
        return node.at(LEFT, y).sized(400, 0).paint("purple")

    def calibrated(self) -> Link:
        """The threshold of memorized prompts, measured by a node in the first column, below the comparison's height."""
        wires = {"model": self.model, "clip": self.clip, "latent_image": self.latent}
        node = self.graph.node("MG_Calibrate", **wires).at(0, ROW).sized(380, 640).paint("purple")
        self.frame("Thresholds for your model", node, color=OURS, row=1)
        self.tune(node, prompts="\n".join(ordinary_prompts()))
        self.on_lab.append((node.id, "prompts", CALIBRATED_ON))
        return node["memorized_threshold"]

    def references(self, y: float = 0) -> Node:
        node = self.graph.node("MG_ReferencesFromFolder", folder=CHOOSE, vae=self.vae, size_of=self.latent)
        self.tune(node, folder="training").on_lab.append((node.id, "folder", "lab512 training images"))
        return node.at(LEFT, y).sized(400, 260).paint("purple")

    def guidance(self, references: Node, **values: object) -> Node:
        """AMG Guidance away from the references; from here on, `model` is the guided one."""
        wires = {"model": self.model, "references": references["references"], "vae": self.vae}
        self.model = node = self.graph.node("MG_AMGGuidance", **wires, **values)
        return node.at(960, 0).sized(400, 0).paint("purple")

    def check(self, x: float, y: float, images: Node | Link, references: Node, title: str = "") -> Node:
        wires = {"images": images, "references": references["references"], "vae": self.vae}
        return self.graph.node("MG_CopyCheck", title, **wires).at(x, y).sized(640, 700).paint("blue")

    def decoded(
        self, latent: Link, x: float, y: float, prefix: str, title: str, side: float = 400
    ) -> tuple[Node, Node]:
        decoder = self.graph.node("VAEDecode", samples=latent, vae=self.vae).at(x, y).sized(side, 46)
        saved = self.graph.node("SaveImage", title, images=decoder, filename_prefix=f"memorization_guard/{prefix}")
        return decoder, saved.at(x, y + 96).sized(side, side + 90)

    def comparison(self, *more: Node, row: int = 1, group: str = "For comparison: KSampler alone") -> tuple[Node, Node]:
        """Sampled by KSampler with the same prompt and seed, in a row of its own; returns decoder and image."""
        y = ROW * row
        plain = self.plain(LEFT, y)
        image = self.decoded(plain["LATENT"], LEFT + 320 + GAP, y, "plain", "Save Image: KSampler, same seed")
        self.frame(group, plain, *image, *more, color=PLAIN, row=row)
        return image
