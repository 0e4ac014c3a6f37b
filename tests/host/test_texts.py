"""What nodes say to people: whether it worked, and which setting to change. Each case is a common mistake."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from memorization_guard.adapter import hints
from memorization_guard.adapter.hints import FILLED_NEGATIVE, Graph, negative_hint
from memorization_guard.drawing.node_views import text_view
from support.executor import Host
from support.graphs import amg, custom, deferred, detector, guider, ksampler, lab, optimizer, patch
from support.outcomes import run


def view(host: Host, own: dict, batch: int = 4, **more: dict) -> dict[str, Any]:
    host.run({"lab": lab(batch), "own": own, **more})
    return host.views("own")[-1]


@pytest.mark.parametrize("way", ["sampler", "patch", "guider", "curve"])
def test_a_start_percent_that_comes_before_the_escape_is_said(host: Host, way: str) -> None:
    early = {"start_percent": 0.05}
    more: dict[str, dict] = {}
    if way == "curve":
        own, more = deferred(curve=["d", 3], **early), {"d": detector()}
    elif way == "sampler":
        own = deferred(**early)
    elif way == "patch":
        own, more = patch(**early), {"k": ksampler(model=["own", 0])}
    else:
        own, more = guider(**early), custom(["own", 0])
    assert view(host, own, **more)["warning"] == "4 of 4 images had not left the basin at start_percent 0.05: raise it."


def test_a_deferral_says_whether_it_acts_and_from_which_step(host: Host) -> None:
    for own in (deferred(start_percent=0.8), deferred("static", start_percent=0.05), deferred("off")):
        assert view(host, own)["warning"] == ""
    late = "Same as KSampler: with denoise 0.40, sampling starts after start_percent."
    for own, said in (
        (deferred("off"), "Off: same as KSampler."),
        (patch("off"), "Off"),
        (guider("off"), "Off"),
        (deferred("static", steps=10, start_percent=0.3), "Guided from step 4."),
        (deferred("static", start_percent=0.5, denoise=0.4), "Guided from step 1."),
        (deferred(denoise=0.4), late),
        (deferred(denoise=0.0), "denoise 0.00"),
    ):
        assert view(host, own)["headline"].startswith(said)
    headline = view(host, patch(), k=ksampler(model=["own", 0], denoise=0.4))["headline"]
    assert headline.startswith("Guided from the first step") and "`start_percent` 0.50" in headline
    one = view(host, deferred(start_percent=0.05), batch=1)["warning"]
    assert one.startswith("1 of 1 image had not left"), "no plural"


def test_each_thing_is_said_once(host: Host) -> None:
    said = view(host, detector())
    assert said["warning"] == "Memorized prompt: 4 of 4 images start inside a basin."
    assert said["headline"].startswith("Out of the basin from step")
    shown = text_view("2 of 4 images may be copies.\nlatent\n- image 1", "2 of 4 images may be copies.")
    assert shown["headline"] == "latent" and shown["notes"] == ["- image 1"]


@pytest.mark.parametrize("own", [deferred(cfg=1.0), guider(cfg=1.0), patch()])
def test_a_deferral_says_that_it_needs_guidance(host: Host, own: dict) -> None:
    more = {"MG_DeferredCFGGuider": custom(["own", 0]), "MG_DeferredCFG": {"k": ksampler(model=["own", 0], cfg=1.0)}}
    said = view(host, own, **more.get(own["class_type"], {}))
    assert said["warning"] == "The sampler's cfg is 1: there is no guidance to defer. Set cfg above 1."


def test_a_default_says_which_size_it_is_for(host: Host) -> None:
    said = "was chosen for latents of 4 × 64 × 64 (512×512 pixels), but these are 4 × 8 × 8."
    for own, name in (
        (detector(memorized_threshold=0.02), "the default 0.02 of `memorized_threshold`"),
        (deferred(memorized_threshold=0.02), "the default 0.02 of `memorized_threshold`"),
        (optimizer(target_magnitude=0.007, max_iterations=1), "the default 0.007 of `target_magnitude`"),
    ):
        assert f"{name} {said}" in "".join(view(host, own)["notes"])
    for own in (detector(memorized_threshold=0.021), optimizer(target_magnitude=0.008, max_iterations=1)):  # calibrated
        assert said not in "".join(view(host, own)["notes"])


@pytest.mark.parametrize(
    ("changed", "cfg", "names"),
    [
        ({}, 1.0, "despecification"),
        ({"memorized_threshold": 0.02}, 1.0, "despecification and memorized_threshold"),
        ({"despecification": 0.0}, 1.0, ""),
        ({}, 7.0, ""),
    ],
)
def test_amg_says_that_it_needs_guidance(host: Host, changed: dict, cfg: float, names: str) -> None:
    run(host, batch=2, own=amg(**changed), k=ksampler(model=["own", 0], cfg=cfg))
    said = f"The sampler's cfg is 1: without guidance, {names} cannot act. Set cfg above 1." if names else ""
    assert host.views("own")[-1]["warning"] == said


def link(class_type: str, **inputs: object) -> dict:
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize(("text", "found"), [("blurry", True), ("", False)])
def test_a_patch_finds_the_negative_of_the_sampler_behind_it(monkeypatch, text: str, found: bool) -> None:
    graph = {
        "g": link("MG_AMGGuidance", model=["m", 0]),
        "l": link("LoraLoaderModelOnly", model=["g", 0], strength_model=1.0),
        "t": link("CLIPTextEncode", text=text),
        "k": link("KSampler", model=["l", 0], negative=["t", 0]),
        "other": link("KSampler", model=["m", 0], negative=["u", 0]),
        "u": link("CLIPTextEncode", text="a word that another sampler uses"),
    }
    queue = SimpleNamespace(currently_running={0: (0, "run", graph, {}, []), 1: (0, "other run", {}, {}, [])})
    monkeypatch.setattr(hints, "server", lambda: SimpleNamespace(prompt_queue=queue))
    monkeypatch.setattr(hints, "executing_context", lambda: SimpleNamespace(prompt_id="run"))
    assert hints.guidance_negative_hint("g") == ([hints.FILLED_NEGATIVE_GUIDANCE] if found else [])
    assert hints.negative_hint_behind("g", None) == ([hints.FILLED_NEGATIVE] if found else [])
    assert hints.negative_hint_behind("g", []) == hints.guidance_negative_hint("gone") == []
    monkeypatch.setattr(hints, "executing_context", lambda: None)
    assert hints.guidance_negative_hint("g") == []


def hint(graph: Graph, negative: object, null: object = None) -> list[str]:
    return negative_hint(graph | {"n": link("MG_NoiseOptimizer", negative=negative)}, "n", null)


TEXT = {"t": link("CLIPTextEncode", clip=["c", 1], text="blurry"), "e": link("CLIPTextEncode", text=" \n")}
LINKED = {
    "p": link("PrimitiveString", value="blurry"),
    "q": link("PrimitiveString", value=""),
    "j": link("StringConcatenate", string_a=["q", 0], string_b=["p", 0], delimiter=", "),
    "t": link("CLIPTextEncode", text=["j", 0]),
    "e": link("CLIPTextEncode", text=["q", 0]),
}


@pytest.mark.parametrize("graph", [TEXT, LINKED], ids=["typed", "linked"])
def test_words_are_found_wherever_they_come_from(graph: Graph) -> None:
    assert hint(graph, ["t", 0]) == [FILLED_NEGATIVE]
    assert hint(graph, ["e", 0]) == []
    assert hint(graph, ["t", 0], null=[]) == []
    both = graph | {"b": link("ConditioningCombine", conditioning_1=["e", 0], conditioning_2=["t", 0])}
    assert hint(both, ["b", 0]) == [FILLED_NEGATIVE]
    assert hint(both | {"z": link("ConditioningZeroOut", conditioning=["b", 0])}, ["z", 0]) == []


def test_a_graph_is_walked_once_and_may_have_circles_and_holes() -> None:
    graph = {"0": TEXT["e"]}
    for i in range(1, 200):
        links = {f"conditioning_{k}": [str(i - 1), 0] for k in (1, 2)}
        graph[str(i)] = link("ConditioningCombine", **links)
    began = time.monotonic()
    assert hint(graph, ["199", 0]) == []
    assert time.monotonic() - began < 1
    assert hint({"a": link("X", conditioning=["b", 0]), "b": link("X", conditioning=["a", 0])}, ["a", 0]) == []
    assert hint({}, ["gone", 0]) == [] and hint({}, None) == []
