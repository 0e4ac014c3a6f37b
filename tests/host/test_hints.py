"""Whether a filled negative prompt stands in for the empty one is read off the graph."""

import time

import pytest

from memorization_guard.adapter.hints import FILLED_NEGATIVE, Graph, negative_hint


def node(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def hint(graph: Graph, negative: object, null: object = None) -> list[str]:
    return negative_hint(graph | {"n": node("MG_NoiseOptimizer", negative=negative)}, "n", null)


TEXT = {"t": node("CLIPTextEncode", clip=["c", 1], text="blurry"), "e": node("CLIPTextEncode", text=" \n")}
LINKED = {
    "p": node("PrimitiveString", value="blurry"),
    "q": node("PrimitiveString", value=""),
    "j": node("StringConcatenate", string_a=["q", 0], string_b=["p", 0], delimiter=", "),
    "t": node("CLIPTextEncode", text=["j", 0]),
    "e": node("CLIPTextEncode", text=["q", 0]),
}


@pytest.mark.parametrize("graph", [TEXT, LINKED], ids=["typed", "linked"])
def test_words_are_found_wherever_they_come_from(graph: Graph) -> None:
    assert hint(graph, ["t", 0]) == [FILLED_NEGATIVE]
    assert hint(graph, ["e", 0]) == []
    assert hint(graph, ["t", 0], null=[]) == []
    both = graph | {"b": node("ConditioningCombine", conditioning_1=["e", 0], conditioning_2=["t", 0])}
    assert hint(both, ["b", 0]) == [FILLED_NEGATIVE]
    assert hint(both | {"z": node("ConditioningZeroOut", conditioning=["b", 0])}, ["z", 0]) == []


def test_a_conditioning_that_is_shared_is_visited_once() -> None:
    graph = {"0": TEXT["e"]}
    for i in range(1, 200):
        links = {f"conditioning_{k}": [str(i - 1), 0] for k in (1, 2)}
        graph[str(i)] = node("ConditioningCombine", **links)
    began = time.monotonic()
    assert hint(graph, ["199", 0]) == []
    assert time.monotonic() - began < 1


def test_a_circle_or_a_node_that_is_missing_is_no_error() -> None:
    assert hint({"a": node("X", conditioning=["b", 0]), "b": node("X", conditioning=["a", 0])}, ["a", 0]) == []
    assert hint({}, ["gone", 0]) == [] and hint({}, None) == []
