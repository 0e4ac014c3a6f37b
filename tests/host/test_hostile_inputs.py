"""No typed input ends in a traceback of ours: it runs, or one clear sentence says what is wrong."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

import nodes as host_nodes
from support import every_node
from support.every_node import EVERY_NODE
from support.executor import Host
from support.graphs import lab, node
from support.hostile_runs import Tally, inputs, judge, plan, prompt_of
from support.outcomes import refused

SOCKETS = {"MG_BasinEscapeDetector": ["model", "negative"], "MG_Calibrate": ["clip"]}
SOCKETS |= {
    "MG_DeferredCFG": ["null"],
    "MG_PlotCurve": ["curve"],
    "MG_AMGGuidance": ["references", "vae"],
    "MG_ReferencesFromImages": ["images"],
}
pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(scope="module")
def whole(host: Host, vae: Any, tmp_path_factory) -> Iterator[dict[str, Any]]:
    """The objects that the prompts may link to, and beside the files that work some links that lead elsewhere."""
    made, outside = every_node.prepare(host, vae), tmp_path_factory.mktemp("outside")
    for root in (host.base / "input", host.base / "models" / "memorization_references"):
        for name, target in {"outside": outside, "loop": root / "loop", "escape.safetensors": outside / "x"}.items():
            (root / name).symlink_to(target)
    yield made
    for root in (host.base / "input", host.base / "models" / "memorization_references"):
        for name in ("outside", "loop", "escape.safetensors"):
            (root / name).unlink()


def test_every_node_has_a_case(host: Host) -> None:
    assert set(EVERY_NODE) == {name for name in host_nodes.NODE_CLASS_MAPPINGS if name.startswith("MG_")}


@pytest.mark.parametrize("class_type", EVERY_NODE)
def test_hostile_inputs(host: Host, whole: dict[str, Any], tally: Tally, class_type: str) -> None:
    every_node.run(host, EVERY_NODE[class_type], whole)  # else nothing behind the first refusal would be reached

    @plan(1 / len(EVERY_NODE))
    @given(inputs(class_type))
    def run(changed: dict[str, Any]) -> None:
        prompt, objects = prompt_of(class_type, changed)
        judge(lambda: every_node.run(host, prompt, whole | objects), prompt, tally, changed)

    run()
    assert not tally.wrong, "\n\n".join(tally.wrong.values())


@pytest.mark.parametrize(("class_type", "name"), [(kind, name) for kind, names in SOCKETS.items() for name in names])
def test_an_empty_socket_says_what_to_connect(host: Host, whole: dict[str, Any], class_type: str, name: str) -> None:
    """A checkpoint without a VAE or CLIP gives None, and the host passes it on; an optional one is not connected."""
    prompt, given = {"lab": lab(2), **EVERY_NODE[class_type]}, {**whole, "nothing": None}
    prompt["n"] = node(class_type, **{**prompt["n"]["inputs"], name: ["nothing", 0]})
    if name in ("vae", "null"):
        assert host.run(prompt, given)["n"]
    else:
        said = refused(host, {"n": prompt["n"], "lab": prompt["lab"]}, given)
        assert f": `{name}` is empty." in said and "onnect " in said
