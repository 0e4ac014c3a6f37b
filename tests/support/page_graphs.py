"""Small workflows on the lab checkpoint, built in the page; nodes are found again by their title."""

from __future__ import annotations

import json
from pathlib import Path

from support.browser import Page
from tools.assets.make_workflow import Graph, Link, Node, build

MEMORIZED = "Harbour at Dawn, a red disc"
STEPS = 8
SAMPLING = {"steps": STEPS, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal"}
DYNAMIC = {"mode": "dynamic", "pre_escape_cfg": -1.0, "memorized_threshold": 0.024}


class Lab:
    """A graph that begins with the checkpoint, a prompt and a latent."""

    def __init__(self, batch: int = 2, prompt: str = MEMORIZED) -> None:
        self.graph = Graph()
        loader = self.graph.node("CheckpointLoaderSimple", ckpt_name="lab.safetensors")
        self.model: Link | Node = loader[0]
        clip, self.vae = loader[1, 2]
        self.positive = self.graph.node("CLIPTextEncode", "positive", clip=clip, text=prompt)
        self.negative = self.graph.node("CLIPTextEncode", "negative", clip=clip, text="")
        self.latent = self.graph.node("EmptyLatentImage", "latent", width=96, height=96, batch_size=batch)

    @property
    def wires(self) -> dict:
        return {"model": self.model, "positive": self.positive, "negative": self.negative, "latent_image": self.latent}

    def sampler(self, seed: int = 1, **values: object) -> Node:
        return self.graph.node("MG_DeferredCFGKSampler", "sampler", **self.wires, seed=seed, **SAMPLING, **values)

    def plain(self, seed: int = 1) -> Node:
        return self.graph.node("KSampler", "plain", **self.wires, seed=seed, **SAMPLING)

    def detector(self) -> Node:
        look = {"noise_seed": 1, "steps": STEPS, "memorized_threshold": 0.024}
        detector = self.graph.node("MG_BasinEscapeDetector", "detector", **self.wires, **look)
        self.graph.node("PreviewAny", source=detector["memorized"])
        return detector

    def references(self, folder: str = "training") -> Node:
        wires = {"vae": self.vae, "size_of": self.latent}
        return self.graph.node("MG_ReferencesFromFolder", "references", folder=folder, metric="latent", **wires)

    def guided(self, references: Node) -> Node:
        """From here on, `model` is the guided one."""
        wires = {"references": references["references"], "vae": self.vae}
        self.model = node = self.graph.node("MG_AMGGuidance", "guided", model=self.model, **wires)
        return node

    def saved(self, latent: Link) -> Node:
        """Decoded and shown; returns the decoder."""
        decoded = self.graph.node("VAEDecode", samples=latent, vae=self.vae)
        self.graph.node("PreviewImage", "picture", images=decoded)
        return decoded

    def check(self, images: Node, references: Node) -> Node:
        wires = {"references": references["references"], "vae": self.vae}
        return self.graph.node("MG_CopyCheck", "check", images=images, **wires)

    def build(self, page: Page) -> dict[str, int]:
        """Put it into the page, with nothing in the server's cache; returns the ids of the nodes by title."""
        page.server.free()
        nodes2 = page.nodes2
        page.use(nodes2=False)  # Nodes 2.0 would not place them
        build(page, self.graph, "lab")
        page.use(nodes2)
        page.server.free()  # one that comes when a prompt has just ended waits behind the next prompt
        page.tab.wait_for_timeout(100)
        return {node["title"]: node["id"] for node in self.graph.nodes if node["title"]}


def save(page: Page, path: Path) -> dict:
    """What the frontend would save of the open workflow, opened again from a file."""
    saved = page.tab.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    path.write_text(json.dumps(saved), encoding="utf-8")
    page.load_workflow(path)
    return saved
