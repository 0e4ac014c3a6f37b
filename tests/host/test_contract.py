"""What saved workflows rest on: every node as the host describes it, and the workflows of every release.

On purpose: `MG_UPDATE=1 .host/python -m pytest tests/host/test_contract.py` writes the snapshot again; look at its
difference, since whatever is renamed, moved or taken away breaks somebody's workflow. At a release, copy
`workflows/*.json` into `tests/saved_workflows/<version>/`, and never change what is there.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import nodes as host_nodes
from support.executor import Host

TESTS = Path(__file__).resolve().parents[1]
SNAPSHOT = TESTS / "host" / "object_info.json"
SAVED = sorted((TESTS / "saved_workflows").glob("*/*.json"))
KEPT = ("default", "min", "max", "step", "round", "multiline", "control_after_generate")
ON_DISK = {"file", "folder"}  # their choices, and the first of them, are what lies there
THE_HOSTS = {"sampler_name", "scheduler"}


def described() -> dict[str, Any]:
    made = {}
    for name, kind in sorted(host_nodes.NODE_CLASS_MAPPINGS.items()):
        if name.startswith("MG_"):
            info = kind.GET_NODE_INFO_V1()
            made[name] = {
                **{fact: info[fact] for fact in ("display_name", "category", "output_node")},
                "inputs": {
                    group: {i: _input(i, *spec) for i, spec in info["input"].get(group, {}).items()}
                    for group in ("required", "optional")
                },
                "outputs": [
                    list(o) for o in zip(info["output"], info["output_name"], info["output_is_list"], strict=True)
                ],
            }
    return json.loads(json.dumps(made))


def _input(name: str, kind: Any, options: dict[str, Any] | None = None) -> dict[str, Any]:
    options = options or {}
    choices = kind if isinstance(kind, list) else options.get("options")
    said = {"type": "COMBO" if isinstance(kind, list) else kind} | {k: options[k] for k in KEPT if k in options}
    if name in ON_DISK:
        said.pop("default", None)
    if choices is None or name in ON_DISK | THE_HOSTS:
        return said
    return said | {"options": list(choices)}


def test_the_nodes_are_as_they_were(host: Host) -> None:
    now = described()
    if os.environ.get("MG_UPDATE"):
        SNAPSHOT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    then = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert list(now) == list(then)
    for name in then:
        assert now[name] == then[name], f"{name} changed; if on purpose, see the top of this file"
        # The frontend keeps widgets by their place: the order is part of the contract.
        for group in ("required", "optional"):
            assert list(now[name]["inputs"][group]) == list(then[name]["inputs"][group]), name


@pytest.mark.parametrize("file", SAVED, ids=lambda f: f"{f.parent.name} {f.stem}")
def test_saved_workflows_still_fit(host: Host, file: Path) -> None:
    """Their sockets and widgets exist with their types, and their choices and numbers are still allowed."""
    workflow, now = json.loads(file.read_text(encoding="utf-8")), described()
    inner = [n for g in workflow.get("definitions", {}).get("subgraphs", []) for n in g["nodes"]]
    ours = [n for n in [*workflow["nodes"], *inner] if n["type"].startswith("MG_")]
    assert ours
    for node in ours:
        spec = now[node["type"]]
        known = spec["inputs"]["required"] | spec["inputs"]["optional"]
        for socket in node["inputs"]:
            assert socket["name"] in known, f"{node['type']}: input {socket['name']} is gone"
            assert socket["type"] == known[socket["name"]]["type"], f"{node['type']}: {socket['name']}"
        old = [(o["type"], o["name"]) for o in node["outputs"]]
        assert old == [tuple(o[:2]) for o in spec["outputs"]][: len(old)], node["type"]
        values = list(node.get("widgets_values") or [])
        for name, widget in known.items():
            if widget["type"] not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or not values:
                continue
            value = values.pop(0)
            if widget.get("control_after_generate"):
                assert values.pop(0) in ("fixed", "increment", "decrement", "randomize")
            if widget["type"] == "COMBO" and "options" in widget:
                assert value in widget["options"], f"{node['type']}: {name} {value!r}"
            if widget["type"] in ("INT", "FLOAT"):
                assert widget["min"] <= value <= widget["max"], f"{node['type']}: {name} {value!r}"
            if widget["type"] == "BOOLEAN":
                assert isinstance(value, bool), f"{node['type']}: {name} {value!r}"
        assert not values, f"{node['type']}: widgets are gone, {values} are left over"
