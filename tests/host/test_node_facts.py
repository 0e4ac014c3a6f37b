"""What the page knows about the nodes is what the nodes say. If not: .host/python tools/assets/node_facts.py"""

from typing import Any

import pytest

from memorization_guard.mitigation.escape.rules import RULES
from support.executor import Host
from support.paths import PACK
from tools.assets.node_facts import FILE, page_facts

EVERY_RULE: dict[str, list[str]] = {rule: [] for rule in RULES}


@pytest.fixture
def nodes(host: Host) -> list[Any]:
    return host.module(PACK).collect_nodes()


def test_the_file_is_up_to_date(host: Host, nodes: list[Any]) -> None:
    schema = host.module(PACK, "nodes.schema")
    assert FILE.read_text(encoding="utf-8") == page_facts(nodes, schema.USED_WITH, schema.REPLACED_BY)


def test_a_view_is_shown_by_the_nodes_that_make_one(nodes: list[Any]) -> None:
    shown = page_facts(nodes, {}, {})
    without = {node.GET_SCHEMA().node_id for node in nodes if f'"{node.GET_SCHEMA().node_id}"' not in shown}
    assert without == {"MG_PlotCurve", "MG_LoadCopyDetector"}


@pytest.mark.parametrize(
    ("used_with", "replaced_by", "named"),
    [
        ({"rule": {**EVERY_RULE, "linear": []}}, {}, "linear"),
        ({"rule": {"sharp drop": ["drop_ratio"]}}, {}, "local minimum"),
        ({"rule": {**EVERY_RULE, "sharp drop": ["drop_rate"]}}, {}, "drop_rate"),
        ({"rule": {**EVERY_RULE, "sharp drop": ["adjustments"]}}, {}, "adjustments"),
        ({"rules": {}}, {}, "rules"),
        ({}, {"size_of": ["depth"]}, "depth"),
        ({}, {"size": []}, "size"),
    ],
)
def test_only_what_the_nodes_have_can_be_named(nodes: list[Any], used_with, replaced_by, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        page_facts(nodes, used_with, replaced_by)
