#!/usr/bin/env python3
"""Write UI-format workflows from a description in Python, by building them in the real frontend.

    g = Graph()
    latent = g.node("EmptyLatentImage", width=512, height=512)
    out = g.node("KSampler", "Sampler", latent_image=latent["LATENT"], seed=1, ...).paint("green")

An input's value is a constant (its widget) or another node's output (a link). The file is what the
frontend serialises, so the order of widgets, their sockets and hidden companions such as
`control_after_generate` (always `fixed` unless given) are right by construction.

    .host/python tools/make_workflow.py DESCRIPTIONS.py [--out workflows] [--thumbnails]

where DESCRIPTIONS.py holds `WORKFLOWS = {"file name": function that returns a Graph}`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from support.paths import ROOT

if TYPE_CHECKING:
    from support.browser import Page


class WorkflowError(RuntimeError):
    """The description does not fit the nodes the server has; the message says where."""


@dataclass(frozen=True)
class Link:
    """An output of a node: by index or by name."""

    node: int
    output: int | str


class Node:
    """A node of a Graph; `node[0]` or `node["MODEL"]` is its output, `node[0, 1]` several."""

    def __init__(self, record: dict):
        self.record = record

    def __getitem__(self, output):
        if isinstance(output, tuple):
            return [Link(self.record["id"], one) for one in output]
        return Link(self.record["id"], output)

    def at(self, x: float, y: float) -> Node:
        """Place it; a node without a place is laid out in columns along the links."""
        self.record["pos"] = [x, y]
        return self

    def sized(self, width: float, height: float) -> Node:
        """Make it larger than its widgets need."""
        self.record["size"] = [width, height]
        return self

    def paint(self, color: str) -> Node:
        """red, brown, green, blue, pale_blue, cyan, purple, yellow or black."""
        self.record["color"] = color
        return self

    def collapse(self) -> Node:
        self.record["collapsed"] = True
        return self

    def mute(self) -> Node:
        self.record["mode"] = 2
        return self

    def bypass(self) -> Node:
        self.record["mode"] = 4
        return self

    def lab(self, **values: object) -> Node:
        """What its widgets are set to for a run on the lab checkpoint; not part of the file."""
        self.record["lab"] = {**self.record.get("lab", {}), **values}
        return self


@dataclass(frozen=True)
class Poster:
    """What the thumbnail shows: the view of a node, and pictures on others, each with a caption."""

    view: int
    pictures: tuple[tuple[str, int], ...]


@dataclass
class Graph:
    """The description of a workflow."""

    nodes: list[dict] = field(default_factory=list)
    links: list[dict] = field(default_factory=list)
    groups: list[dict] = field(default_factory=list)
    poster: Poster | None = None

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
        """Add a Markdown note of 420 by 220."""
        note = self.node("MarkdownNote", title).sized(420, 220)
        note.record["text"] = text
        return note

    def group(self, title: str, *nodes: Node, color: str = "#3f789e", bottom: float = -1e6) -> None:
        """Draw a frame around nodes that reaches down to `bottom` at least."""
        ids = [n.record["id"] for n in nodes]
        self.groups.append({"title": title, "nodes": ids, "color": color, "bottom": bottom})

    def shows(self, view: Node, *pictures: tuple[str, Node]) -> None:
        """Choose what the thumbnail is made of."""
        self.poster = Poster(view.record["id"], tuple((caption, n.record["id"]) for caption, n in pictures))

    @property
    def lab(self) -> list[tuple[int, str, object]]:
        """(node, widget, value) of a run on the lab checkpoint."""
        return [(n["id"], name, value) for n in self.nodes for name, value in n.get("lab", {}).items()]


# Builds the description in the page; throws an Error that names the node at fault.
BUILD = """async (g) => {
  const fail = (node, text) => { throw new Error(`node ${node.id} (${node.type}): ${text}`) };
  const names = (list) => (list ?? []).map((x) => x.name).join(", ") || "none";
  await app.extensionManager.command.execute("Comfy.NewBlankWorkflow");
  app.graph.clear();
  const made = {};
  for (const d of g.nodes) {
    if (!(d.type in LiteGraph.registered_node_types)) fail(d, "the server has no such node");
    const n = made[d.id] = LiteGraph.createNode(d.type);
    n.id = d.id;
    app.graph.add(n);
    if (d.title) n.title = d.title;
    if (d.color) {
      const c = LGraphCanvas.node_colors[d.color] ?? fail(d, `unknown color ${d.color}`);
      [n.color, n.bgcolor] = [c.bgcolor ? c.color : undefined, c.bgcolor];
    }
    n.mode = d.mode;
    if (d.text !== undefined) n.widgets[0].value = d.text;
    const seed = n.widgets?.find((w) => w.name === "control_after_generate");
    if (seed) seed.value = "fixed";
    for (const [name, value] of Object.entries(d.values)) {
      const w = n.widgets?.find((x) => x.name === name);
      if (!w) fail(d, `no widget ${name}; it has ${names(n.widgets)}`);
      const choices = typeof w.options?.values === "function" ? w.options.values(w, n) : w.options?.values;
      const file = typeof value === "string" && /\\.\\w{2,12}$/.test(value);
      if (w.type === "combo" && Array.isArray(choices) && !choices.includes(value) && !file)
        fail(d, `${name} = ${value} is none of ${choices.join(", ")}`);
      w.value = value;
      w.callback?.(value, app.canvas, n);
    }
  }
  const depth = Object.fromEntries(g.nodes.map((d) => [d.id, 0]));
  for (const l of g.links) {
    const [from, to] = [made[l.from], made[l.to]];
    const out = typeof l.output === "number" ? l.output : from.findOutputSlot(l.output);
    if (!from.outputs?.[out]) fail(from, `no output ${l.output}; it has ${names(from.outputs)}`);
    const into = to.findInputSlot(l.input);
    if (into < 0) fail(to, `no input ${l.input}; it has ${names(to.inputs)}`);
    if (!from.connect(out, to, into))
      fail(to, `${l.input} is a ${to.inputs[into].type}, not a ${from.outputs[out].type}`);
  }
  for (const _ of g.nodes) for (const l of g.links) depth[l.to] = Math.max(depth[l.to], depth[l.from] + 1);
  const [GAP, TITLE] = [60, 30];
  for (const d of g.nodes) {
    const n = made[d.id], least = n.computeSize();
    n.setSize([Math.max(least[0], d.size?.[0] ?? n.size[0]), Math.max(least[1], d.size?.[1] ?? 0)]);
  }
  let x = 0;
  for (let column = 0; column <= Math.max(0, ...Object.values(depth)); column++) {
    let [y, wide] = [0, 0];
    for (const d of g.nodes.filter((d) => !d.pos && depth[d.id] === column)) {
      const n = made[d.id];
      d.pos = [x, y];
      y += n.size[1] + TITLE + GAP / 2;
      wide = Math.max(wide, n.size[0]);
    }
    if (wide) x += wide + GAP;
  }
  for (const d of g.nodes) {
    made[d.id].pos = d.pos;
    if (d.collapsed) made[d.id].collapse();
  }
  for (const d of g.groups) {
    const group = new LiteGraph.LGraphGroup(d.title);
    group.color = d.color;
    app.graph.add(group);
    d.nodes.forEach((id) => made[id].updateArea());
    group.resizeTo(d.nodes.map((id) => made[id]), 20);
    group.size = [group.size[0], Math.max(group.size[1], d.bottom - group.pos[1])];
  }
  app.canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 300));
  return JSON.stringify(app.graph.serialize());
}"""


def build(page: Page, graph: Graph, name: str) -> dict:
    """The UI-format workflow of a description, as the frontend of `page` writes it."""
    given = {"nodes": graph.nodes, "links": graph.links, "groups": graph.groups}
    try:
        workflow = json.loads(page.tab.evaluate(BUILD, given))
    except Exception as error:
        raise WorkflowError(f"{name}: {error}") from error
    modules = {key: info["python_module"].split(".") for key, info in page.server.object_info().items()}
    for node in workflow["nodes"]:  # the registry's name of the pack, for those who lack it
        if module := modules.get(node["type"]):
            node["properties"]["cnr_id"] = module[1] if module[0] == "custom_nodes" else "comfy-core"
    return stable(workflow, name)


def stable(workflow: dict, name: str) -> dict:
    """Without what differs from one run to the next: id, view, fractions of pixels."""
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"memorization-guard/{name}"))
    workflow.pop("extra", None)  # without a saved view the frontend fits the graph
    workflow["extra"] = {}
    for node in workflow["nodes"]:
        node["pos"] = [round(v) for v in node["pos"]]
        node["size"] = [round(v) for v in node["size"]]
    for group in workflow["groups"]:
        group["bounding"] = [round(v) for v in group["bounding"]]
    return workflow


def write(page: Page, graph: Graph, path: Path) -> dict:
    """Build, write and open the file again; raises WorkflowError when the two differ."""
    workflow = build(page, graph, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(workflow, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    page.load_workflow(path)
    if missing := page.missing_nodes():
        raise WorkflowError(f"{path}: nodes missing after opening it again: {missing}")
    again = page.tab.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))")
    for key in ("type", "widgets_values", "inputs", "outputs"):
        if (old := picked(workflow, key)) != (new := picked(again, key)):
            raise WorkflowError(f"{path}: {key} changed by opening it again:\n{old}\n{new}")
    return workflow


def picked(workflow: dict, key: str) -> dict:
    return {node["id"]: node.get(key) or [] for node in workflow["nodes"]}


def load_descriptions(path: Path) -> dict[str, Callable[[], Graph]]:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise WorkflowError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.WORKFLOWS


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("descriptions", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "workflows")
    parser.add_argument("--thumbnails", action="store_true", help="a .jpg beside each file, of a run on the lab model")
    options = parser.parse_args(None if arguments is None else list(arguments))
    sys.modules.setdefault("make_workflow", sys.modules[__name__])  # it runs as __main__
    from support.browser import Page
    from support.server import Server
    from tools.assets.thumbnails import run_on_lab, thumbnail

    with Server() as server, Page(server) as page:
        for name, make in load_descriptions(options.descriptions).items():
            path, graph = options.out / f"{name}.json", make()
            write(page, graph, path)
            print(path)
            if options.thumbnails:
                entry = run_on_lab(page, graph)
                if crowded := page.overlaps():
                    raise WorkflowError(f"{path}: after a run these lie over each other: {crowded}")
                thumbnail(page, graph, entry, path.with_suffix(".jpg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
