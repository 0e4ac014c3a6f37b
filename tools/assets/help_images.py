"""The pictures of the help pages: each node after a real run on the lab checkpoint, cut out of the real page.

.host/python tools/assets/help_images.py [MG_NoiseOptimizer ...]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from support.browser import SHOW, Page
from support.paths import ROOT
from support.server import Server
from tools.assets.make_workflow import Graph, Node, write

OUT = ROOT / "web" / "docs" / "img"
SIDE, STEPS, SEED, COUNT = 96, 50, 2025, 4
MEMORIZED, ORDINARY = "Winter Orchard, a green ring", "a ring"
SCALE, MARGIN, WIDEST = 1.5, 12, 640
PLACE = "(type) => [...mg.nodes().find((n) => n.type === type).boundingRect]"


@dataclass
class Scene:
    """A checkpoint, a prompt and an empty latent; `wires` is what most nodes take of them."""

    count: int = COUNT
    graph: Graph = field(default_factory=Graph)

    def __post_init__(self) -> None:
        g = self.graph
        self.model, self.clip, self.vae = g.node("CheckpointLoaderSimple", ckpt_name="lab.safetensors")[0, 1, 2]
        self.positive, self.negative = self.text(MEMORIZED), self.text("")
        self.latent = g.node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=self.count)
        self.sides = {"positive": self.positive, "negative": self.negative}
        self.wires = {"model": self.model, **self.sides, "latent_image": self.latent}

    def text(self, text: str) -> Node:
        return self.graph.node("CLIPTextEncode", clip=self.clip, text=text)

    def detector(self, **changed: object) -> Node:
        given = {**self.wires, "noise_seed": SEED, "steps": STEPS, **changed}
        return self.graph.node("MG_BasinEscapeDetector", **given)

    def sampler(self, kind: str = "KSampler", **changed: object) -> Node:
        given = {**self.wires, "seed": SEED, "steps": STEPS, "cfg": 7.0, "scheduler": "normal", **changed}
        return self.graph.node(kind, **given)

    def picture(self, latent: Node) -> Node:
        return self.graph.node("VAEDecode", samples=latent, vae=self.vae)

    def show(self, image: object) -> Graph:
        self.graph.node("PreviewImage", images=image)
        return self.graph

    def references(self) -> Node:
        return self.graph.node("MG_ReferencesFromFolder", folder="training", width=SIDE, height=SIDE, vae=self.vae)


def noise_optimizer() -> Graph:
    s = Scene()
    given = {"target_magnitude": 0.015, "learning_rate": 0.03, "max_iterations": 80}
    noise = s.graph.node("MG_NoiseOptimizer", **s.wires, noise_seed=SEED, **given)
    s.graph.node("PreviewAny", source=noise["summary"])
    return s.graph


def detector() -> Graph:
    s = Scene()
    return s.show(s.detector()["plot"])


def deferred_sampler() -> Graph:
    s = Scene()
    return s.show(s.picture(s.sampler("MG_DeferredCFGKSampler")))


def guider() -> Graph:
    s = Scene()
    g = s.graph
    out = g.node(
        "SamplerCustomAdvanced",
        noise=g.node("RandomNoise", noise_seed=SEED),
        guider=g.node("MG_DeferredCFGGuider", model=s.model, **s.sides, cfg=7.0),
        sampler=g.node("KSamplerSelect", sampler_name="euler"),
        sigmas=g.node("BasicScheduler", model=s.model, scheduler="normal", steps=STEPS),
        latent_image=s.latent,
    )
    return s.show(s.picture(out))


def patch() -> Graph:
    s = Scene()
    return s.show(s.picture(s.sampler(model=s.graph.node("MG_DeferredCFG", model=s.model))))


def guidance() -> Graph:
    s = Scene()
    guided = s.graph.node("MG_AMGGuidance", model=s.model, references=s.references())
    return s.show(s.picture(s.sampler(model=guided)))


def copy_check() -> Graph:
    s = Scene(count=1)
    s.graph.node("MG_CopyCheck", images=s.picture(s.sampler()), references=s.references(), vae=s.vae)
    return s.graph


def plot_curve() -> Graph:
    s = Scene()
    curves = {"curve": s.detector()["curve"], "curve_2": s.detector(positive=s.text(ORDINARY))["curve"]}
    return s.show(s.graph.node("MG_PlotCurve", **curves))


NODES: dict[str, Callable[[], Graph]] = {
    "MG_NoiseOptimizer": noise_optimizer,
    "MG_BasinEscapeDetector": detector,
    "MG_DeferredCFGKSampler": deferred_sampler,
    "MG_DeferredCFGGuider": guider,
    "MG_DeferredCFG": patch,
    "MG_AMGGuidance": guidance,
    "MG_CopyCheck": copy_check,
    "MG_PlotCurve": plot_curve,
}


def cut_out(page: Page, node: str) -> Image.Image:
    """The node alone, legible."""
    page.tab.evaluate("(on) => { app.extensionManager.focusMode = on }", True)
    x, y, width, height = page.tab.evaluate(PLACE, node)
    size = [round(SCALE * side + 2 * MARGIN) for side in (width, height)]
    page.tab.set_viewport_size({"width": max(size[0], 900), "height": max(size[1], 600)})
    page.tab.wait_for_timeout(300)
    page.tab.evaluate(SHOW, [SCALE, MARGIN / SCALE - x, MARGIN / SCALE - y])
    page.settle()
    shot = page.tab.screenshot(clip={"x": 0, "y": 0, "width": size[0], "height": size[1]})
    page.tab.evaluate("(on) => { app.extensionManager.focusMode = on }", False)
    return Image.open(io.BytesIO(shot))


def drawn(page: Page, entry: dict) -> Image.Image:
    """The picture that the run showed."""
    reference = next(output["images"][0] for output in entry["outputs"].values() if "images" in output)
    return Image.open(io.BytesIO(page.server.image(**reference)))


def main() -> int:
    OUT.mkdir(exist_ok=True)
    with Server() as server, Page(server) as page:
        for node in sys.argv[1:] or NODES:
            write(page, NODES[node](), server.base / f"{node}.json")
            entry = page.queue_and_wait()
            picture = drawn(page, entry) if node == "MG_PlotCurve" else cut_out(page, node)
            picture = picture.convert("RGB")
            picture.thumbnail((WIDEST, 10_000), Image.Resampling.LANCZOS)
            picture.save(OUT / f"{node}.jpg", quality=82, optimize=True)
            print(f"{node}: {picture.width}×{picture.height}, {(OUT / f'{node}.jpg').stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
