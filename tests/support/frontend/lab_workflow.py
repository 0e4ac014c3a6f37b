"""Small workflows on the small lab, built in the page; nodes are found again by their title."""

import json
from pathlib import Path

from support import small_lab
from support.frontend.page import Page
from support.frontend.workflow import Graph, Link, Node, build
from support.paths import LAB_CHECKPOINT
from support.server import LAB_TRAINING

MEMORIZED = "Harbour at Dawn, a red disc"
SIDE = 96  # of the lab's images


class LabWorkflow:
    """A graph that begins with the checkpoint, a prompt and a latent.

    tuned: with the strengths that suit the small lab, instead of the nodes' defaults. small: or the lab of SD's size.
    """

    def __init__(
        self,
        batch: int = 2,
        prompt: str = MEMORIZED,
        steps: int = 8,
        seed: int = 1,
        tuned: bool = True,
        small: bool = True,
    ) -> None:
        self.steps, self.seed = steps, seed
        self.folder, side = ("training", SIDE) if small else (LAB_TRAINING, 512)
        self.deferred = small_lab.DEFERRED if tuned else {}
        self.detected = small_lab.DETECTOR if tuned else {}
        self.graph = Graph()
        file = "small_lab.safetensors" if small else LAB_CHECKPOINT.name
        loader = self.graph.node("CheckpointLoaderSimple", ckpt_name=file)
        self.model: Link | Node = loader[0]
        self.clip, self.vae = loader[1, 2]
        self.prompts = {"positive": self.text(prompt, "positive"), "negative": self.text("", "negative")}
        self.latent = self.graph.node("EmptyLatentImage", "latent", width=side, height=side, batch_size=batch)

    def text(self, text: str, title: str = "") -> Node:
        return self.graph.node("CLIPTextEncode", title, clip=self.clip, text=text)

    @property
    def wires(self) -> dict:
        return {"model": self.model, **self.prompts, "latent_image": self.latent}

    def _sampled(self, kind: str, title: str, **values: object) -> Node:
        plan = {"seed": self.seed, "steps": self.steps, "cfg": 7.0, "scheduler": "normal"}
        return self.graph.node(kind, title, **{**self.wires, **plan, **values})

    def sampler(self, **values: object) -> Node:
        return self._sampled("MG_DeferredCFGKSampler", "sampler", **{**self.deferred, **values})

    def plain(self, **values: object) -> Node:
        return self._sampled("KSampler", "plain", **values)

    def detector(self, **values: object) -> Node:
        plan = {"noise_seed": self.seed, "steps": self.steps, **self.detected}
        return self.graph.node("MG_BasinEscapeDetector", "detector", **{**self.wires, **plan, **values})

    def references(self, folder: str = "") -> Node:
        wires = {"vae": self.vae, "size_of": self.latent, "folder": folder or self.folder}
        return self.graph.node("MG_ReferencesFromFolder", "references", **wires)

    def guided(self, references: Node) -> Node:
        """AMG Guidance on `model`, which is the guided one from here on."""
        wires = {"references": references["references"], "vae": self.vae}
        self.model = node = self.graph.node("MG_AMGGuidance", "guided", model=self.model, **wires)
        return node

    def patched(self) -> Node:
        """Deferred CFG on `model`, which is the patched one from here on."""
        self.model = node = self.graph.node("MG_DeferredCFG", "patched", model=self.model, **self.deferred)
        return node

    def shown(self, latent: Link) -> Node:
        decoded = self.graph.node("VAEDecode", samples=latent, vae=self.vae)
        self.graph.node("PreviewImage", images=decoded)
        return decoded

    def check(self, images: Node, references: Node) -> Node:
        wires = {"references": references["references"], "vae": self.vae}
        return self.graph.node("MG_CopyCheck", "check", images=images, **wires)

    def build(self, page: Page) -> dict[str, int]:
        """Put it into the page, with nothing in the server's cache; returns the ids of the nodes by title."""
        page.server.emptied()
        build_classic(page, self.graph, "lab")
        return {node["title"]: node["id"] for node in self.graph.nodes if node["title"]}


def build_classic(page: Page, graph: Graph, name: str) -> None:
    """Build the graph, drawn by the page's renderer but laid out by the classic one: Nodes 2.0 does not place nodes."""
    nodes2 = page.nodes2
    page.use(nodes2=False)
    build(page, graph, name)
    page.use(nodes2)
    page.settle()


def save(page: Page, path: Path) -> dict:
    """What the frontend would save of the open workflow, opened again from a file."""
    saved = page.serialized()
    path.write_text(json.dumps(saved), encoding="utf-8")
    page.load_workflow(path)
    return saved
