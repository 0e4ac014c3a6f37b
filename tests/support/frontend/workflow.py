"""Describe a UI-format workflow in Python and let the real frontend build it.

The file is what the frontend serialises, so the order of widgets and hidden companions are right by construction.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import small_lab
from support.frontend.page import Page
from support.paths import LAB_CHECKPOINT
from support.server import LAB_TRAINING

ZOOM, MARGIN = 0.7, (120, 210)  # of a workflow that is opened; units of the graph left free for the page's bars
BUILD = Path(__file__).with_name("build_workflow.js").read_text(encoding="utf-8")


class WorkflowError(RuntimeError):
    """The description does not fit the nodes that the server has; the message says where."""


@dataclass(frozen=True)
class Link:
    node: int
    output: int | str


class Node:
    """A node of a Graph; `node[0]` or `node["MODEL"]` is its output, `node[0, 1]` several."""

    def __init__(self, record: dict[str, Any]):
        self.record = record

    @property
    def id(self) -> int:
        return self.record["id"]

    def __getitem__(self, output):
        if isinstance(output, tuple):
            return [Link(self.id, one) for one in output]
        return Link(self.id, output)

    def _set(self, **facts: object) -> "Node":
        self.record.update(facts)
        return self

    def at(self, x: float, y: float) -> "Node":
        """Place it; a node without a place is laid out in columns along the links."""
        return self._set(pos=[x, y])

    def sized(self, width: float, height: float) -> "Node":
        return self._set(size=[width, height])

    def paint(self, color: str) -> "Node":
        """red, brown, green, blue, pale_blue, cyan, purple, yellow or black."""
        return self._set(color=color)

    def bypass(self) -> "Node":
        return self._set(mode=4)


@dataclass
class Graph:
    nodes: list[dict] = field(default_factory=list)
    links: list[dict] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)

    def node(self, type: str, title: str = "", /, **inputs: object) -> Node:
        """Add a node. An input is a constant, or an output: `other["MODEL"]`, or `other` for its first."""
        number = len(self.nodes) + 1
        record: dict = {"id": number, "type": type, "title": title, "mode": 0, "values": {}}
        for name, value in inputs.items():
            if isinstance(value, Node):
                value = value[0]
            if isinstance(value, Link):
                self.links.append({"from": value.node, "output": value.output, "to": number, "input": name})
            else:
                record["values"][name] = value
        self.nodes.append(record)
        return Node(record)

    def note(self, text: str, title: str = "Note") -> Node:
        return self.node("MarkdownNote", title).sized(420, 220)._set(text=text)

    def group(self, title: str, *nodes: Node, color: str = "#3f789e", bottom: float = -1e6) -> None:
        self.groups.append({"title": title, "nodes": [n.id for n in nodes], "color": color, "bottom": bottom})


def build(page: Page, graph: Graph, name: str) -> dict:
    """Build a description in the page; returns the workflow as the frontend serialises it."""
    given = {"nodes": graph.nodes, "links": graph.links, "groups": graph.groups}
    try:
        workflow = json.loads(page.tab.evaluate(BUILD, given))
    except Exception as error:
        raise WorkflowError(f"{name}: {error}") from error
    modules = {key: info["python_module"].split(".") for key, info in page.schemas.items()}
    for node in workflow["nodes"]:  # by this name of the pack, the frontend tells users who lack it what to install
        if module := modules.get(node["type"]):
            node["properties"]["cnr_id"] = module[1] if module[0] == "custom_nodes" else "comfy-core"
    return _without_variation(workflow, name)


def _without_variation(workflow: dict, name: str) -> dict:
    """Remove what differs from one run to the next: id, view, fractions of pixels."""
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"memorization-guard/{name}"))
    workflow.pop("extra", None)
    workflow["extra"] = {}  # without a saved view the frontend fits the graph into the window
    for node in workflow["nodes"]:
        node["pos"] = [round(v) for v in node["pos"]]
        node["size"] = [round(v) for v in node["size"]]
    for group in workflow["groups"]:
        group["bounding"] = [round(v) for v in group["bounding"]]
    return workflow


def framed(workflow: dict) -> dict:
    """The workflow with the place and zoom at which it opens: its upper left corner, with legible notes.

    Without them Nodes 2.0 moves the nodes apart, and the classic renderer shows everything too small to read.
    """
    corners = [node["pos"][:2] for node in workflow["nodes"]] + [g["bounding"][:2] for g in workflow.get("groups", [])]
    left, top = (min(corner[axis] for corner in corners) for axis in (0, 1))
    view = {"scale": ZOOM, "offset": [MARGIN[0] - left, MARGIN[1] - top]}
    workflow["extra"] = {**workflow.get("extra", {}), "ds": view}
    return workflow


def write(page: Page, graph: Graph, path: Path, wire: Callable[[Page, dict], dict] | None = None) -> dict:
    """Build, wire, write and open the file again; raises WorkflowError when the two differ. `wire` may add reroutes."""
    workflow = build(page, graph, path.stem)
    workflow = framed(wire(page, workflow) if wire else workflow)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page.load_workflow(path)
    if missing := page.mg("missing"):
        raise WorkflowError(f"{path}: nodes missing after opening it again: {missing}")
    again = page.serialized()
    for key in ("type", "widgets_values", "inputs", "outputs"):
        old, new = ({node["id"]: node.get(key) or [] for node in one["nodes"]} for one in (workflow, again))
        if old != new:
            raise WorkflowError(f"{path}: {key} changed by opening it again:\n{old}\n{new}")
    return workflow


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

    def build(self, page: Page, emptied: bool = True) -> dict[str, int]:
        """Put it into the page, by default with nothing in the server's cache; returns the nodes' ids by title."""
        if emptied:
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
