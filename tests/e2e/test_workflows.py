"""Writing workflows and opening them in the real frontend; those that we ship are run by test_views.py."""

import json
from pathlib import Path

import pytest

from support.frontend import screenshots
from support.frontend.workflow import Graph, WorkflowError, write
from support.paths import PACK_NAME, ROOT

pytestmark = pytest.mark.timeout(900)


def stock() -> Graph:
    """A workflow of the host's own nodes: a seed, a link into a widget, a group and a note."""
    graph = Graph()
    width = graph.node("PrimitiveInt", "Width", value=96)
    image = graph.node("EmptyImage", width=width, height=64, color=0x3366CC)
    inverted = graph.node("ImageInvert", image=image["IMAGE"])
    graph.node("PreviewImage", images=inverted).sized(260, 300)
    graph.node("RandomNoise", noise_seed=7)
    graph.note("## Stock\n\nNodes of the host only.").sized(300, 160)
    graph.group("Images", image, inverted)
    return graph


def test_a_stock_workflow_is_written_opened_and_run(page, tmp_path: Path, artefacts: Path) -> None:
    path = tmp_path / "stock.json"
    workflow = write(page, stock(), path)
    values = {node["type"]: node.get("widgets_values") for node in workflow["nodes"]}
    assert values["RandomNoise"] == [7, "fixed"]
    assert json.loads(path.read_text(encoding="utf-8")) == workflow
    assert page.missing_nodes() == []
    outputs = page.queue_and_wait()["outputs"]
    assert [len(output["images"]) for output in outputs.values() if "images" in output] == [1]
    screenshots.whole_graph(page, artefacts / "stock.png")


def test_our_subgraphs_are_offered_and_open(page) -> None:
    offered = page.server.call("GET", "/global_subgraphs").json().values()
    offered = [
        entry for entry in offered if entry["info"]["node_pack"].endswith(PACK_NAME)
    ]  # newer hosts have their own
    files = sorted((ROOT / "subgraphs").glob("*.json"))
    assert {entry["name"] for entry in offered} == {file.stem for file in files} and len(files) == 2
    for file in files:
        page.load_workflow(file)
        title, shown = page.tab.evaluate("() => app.graph.nodes.map((n) => [n.title, n.widgets.map((w) => w.name)])[0]")
        assert page.missing_nodes() == [] and title == file.stem
        assert {"steps", "cfg", "scheduler"} <= {name.split(": ")[-1] for name in shown}


def test_a_descriptor_input_takes_a_copy_detector_and_a_clip_vision(page, tmp_path: Path) -> None:
    graph = Graph()
    for network in ("MG_LoadCopyDetector", "CLIPVisionLoader"):
        graph.node("MG_LoadReferences", descriptor=graph.node(network))
    workflow = write(page, graph, tmp_path / "descriptors.json")
    assert len(workflow["links"]) == 2


def test_missing_nodes_are_told(page, tmp_path: Path) -> None:
    path = tmp_path / "foreign.json"
    workflow = write(page, stock(), path)
    workflow["nodes"][2]["type"] = "NodeOfAnotherPack"
    path.write_text(json.dumps(workflow), encoding="utf-8")
    page.load_workflow(path)
    assert page.missing_nodes() == ["NodeOfAnotherPack"]


@pytest.mark.parametrize(
    ("inputs", "text"),
    [({"upscale_method": "magic"}, "none of"), ({"colour": 1}, "no widget colour"), ({"image": 0}, "no output")],
)
def test_a_wrong_description_is_refused(page, tmp_path: Path, inputs: dict, text: str) -> None:
    graph = Graph()
    saved = graph.node("PreviewImage")
    graph.node("ImageScale", **{k: saved[9] if k == "image" else v for k, v in inputs.items()})
    with pytest.raises(WorkflowError, match=text):
        write(page, graph, tmp_path / "wrong.json")
