"""What nodes say to people: whether it worked, and what to change where an input is probably not meant."""

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from memorization_guard.adapter import hints
from memorization_guard.adapter.hints import FILLED_NEGATIVE, Graph, negative_hint
from memorization_guard.drawing.node_views import text_view
from support import graphs
from support.accidents import hooked
from support.executor import Host
from support.graphs import amg, custom, deferred, detector, guider, ksampler, lab, optimizer, patch
from support.graphs import checkpoint as on_lab
from support.graphs.features import Feature
from support.lab_files import quantized, scaled_fp8
from support.lab_pack import exact
from support.outcomes import refused, run, same_bits, samples


def said(host: Host, caplog, prompt: dict[str, Any], given: dict[str, Any] | None = None) -> tuple[dict, str]:
    """The outputs, and the hints of the nodes' last views, which the log has, too."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "memorization_guard"):
        out = host.run(prompt, given)
    logged = {r.getMessage() for r in caplog.records if r.name == "memorization_guard"}
    hints = [note for node in prompt for view in host.views(node)[-1:] for note in view["notes"]]
    assert set(hints) <= logged
    return out, "\n".join(hint for hint in hints if "was chosen for latents" not in hint)  # the exact model is small


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_schedule_too_short_for_start_percent(host: Host, caplog, mode: str) -> None:
    short = {"steps": 1, "start_percent": 0.5}
    out, _ = said(
        host, caplog, {"lab": lab(2), "k": deferred(mode, **short), "free": graphs.ksampler(cfg=0.0, steps=1)}
    )
    hint = host.views("k")[-1]["warning"]
    assert "Never guided: 2 of 2 images" in hint
    assert "`start_percent` 0.50" in hint and "the last step starts at 0.00" in hint and "Raise `steps`" in hint
    torch.testing.assert_close(samples(out["k"]), samples(out["free"]))
    assert out["k"][2] == 1
    first = graphs.stage(0, 4, model=["p", 0], steps=10)  # guidance is left to a second stage
    assert said(host, caplog, {"lab": lab(1), "p": graphs.patch(mode, start_percent=0.9), "k": first})[1] == ""


def test_a_noise_that_was_found_at_another_level(host: Host, caplog) -> None:
    """All of the host's schedulers begin at the noise's own level."""
    late = graphs.node("BasicScheduler", model=graphs.MODEL, scheduler="normal", steps=20, denoise=0.5)
    uses = {"k": deferred("off", noise=["o", 0], steps=20, denoise=0.5)}
    uses["d"] = detector(noise=["o", 0], sigmas=["s", 0])
    plain = {"lab": lab(1), "s": late, "o": optimizer("search", candidates=1)}
    hint = said(host, caplog, plain | uses)[1]
    assert hint.count("made for noise level 14.6") == 2 and "`sigmas`" in hint, "by either of them"
    for scheduler in ("normal", "karras", "simple", "beta", "sgm_uniform"):
        use = deferred("off", noise=["o", 0], scheduler=scheduler)
        assert said(host, caplog, plain | {"k": use})[1] == "", scheduler
    assert said(host, caplog, {**plain, "o": optimizer("search", candidates=1, sigmas=["s", 0]), **uses})[1] == ""


def test_a_filled_negative_without_null_is_said(host: Host, checkpoint, caplog) -> None:
    feature = Feature({"neg": on_lab.text("a green ring")}, {"negative": ["neg", 0]})
    sample = on_lab.deferred(**feature.inputs(), steps=1)
    guided = {"g": on_lab.guider(negative=["neg", 0]), **on_lab.custom(["g", 0], steps=1)}
    for nodes in ({"d": on_lab.detector(**feature.inputs(), steps=1)}, {"k": sample}, guided):
        prompt = feature.prompt(**nodes)
        assert "empty CLIP Text Encode to `null`" in said(host, caplog, prompt, checkpoint)[1]
    sample["inputs"]["mode"] = "static"  # measures nothing, compares nothing
    assert "`null`" not in said(host, caplog, feature.prompt(k=sample), checkpoint)[1]
    optimize = on_lab.optimizer("search", **feature.inputs(), candidates=1)
    out = host.run(feature.prompt(o=optimize), checkpoint)["o"]
    assert "empty CLIP Text Encode to `null`" in out[2]
    for links in ({**feature.inputs(), "null": ["null", 0]}, on_lab.LINKS):
        prompt = feature.prompt(d=on_lab.detector(**links, steps=1))
        assert said(host, caplog, prompt, checkpoint)[1] == ""
        sample = feature.prompt(k=on_lab.deferred(**links, steps=1))
        assert "`null`" not in said(host, caplog, sample, checkpoint)[1]
        optimize = on_lab.optimizer("search", **links, candidates=1)
        assert "`null`" not in host.run(feature.prompt(o=optimize), checkpoint)["o"][2]


@pytest.mark.parametrize("fault", ["", "quantized"])
def test_no_iterations_only_measure(host: Host, fault: str) -> None:
    """Without gradients, so a quantized model can be measured, too."""
    prompt = {"lab": lab(2), "o": optimizer(max_iterations=0), "plain": optimizer("search", candidates=1)}
    if fault:
        prompt["f"] = graphs.faulty(fault)
        prompt["o"]["inputs"]["model"] = prompt["plain"]["inputs"]["model"] = ["f", 0]
    out = host.run(prompt)
    noise, report, summary = out["o"]
    assert torch.equal(noise.noise, out["plain"][0].noise)
    assert torch.equal(report.before, report.after) and (report.iterations == 0).all()
    assert (report.evaluations == 2).all() and "NOT REACHED for 2 of 2" in summary


def huge(apply_model, args):
    out = apply_model(args["input"], args["timestep"], **args["c"])
    sign = torch.ones(len(out)).index_fill(0, torch.arange(len(out) // 2), -1.0).view(-1, 1, 1, 1)
    return torch.full_like(out, 1e37) * sign


@pytest.mark.parametrize("use", ["per-sample", "batch-wise", "search", "detector", "sampler"])
def test_an_infinite_magnitude(host: Host, use: str) -> None:
    watch = {"detector": detector(model=["m", 0]), "sampler": deferred(model=["m", 0])}
    prompt = {"lab": lab(2), "n": watch.get(use) or optimizer(use, model=["m", 0])}
    message = refused(host, prompt, {"m": hooked(exact.build(), huge)})
    assert "magnitude is infinite" in message and "`model`" in message


@pytest.mark.parametrize("method", ["per-sample", "batch-wise", "search"])
@pytest.mark.parametrize("target", [0.0, 0.007])
def test_positive_and_negative_alike_leave_the_noise_as_it_is(host: Host, method: str, target: float) -> None:
    alike = {"positive": graphs.MEMORIZED, "negative": graphs.MEMORIZED}
    prompt = {"lab": lab(3), "o": optimizer(method, **alike, target_magnitude=target), "d": detector(**alike)}
    prompt["plain"] = optimizer("search", positive=graphs.ORDINARY, candidates=1, target_magnitude=1.0)
    out = host.run(prompt)
    noise, report, summary = out["o"]
    assert torch.equal(noise.noise, out["plain"][0].noise)
    assert (report.after == 0).all() and "NOT REACHED" not in summary and "nan" not in summary
    assert out["d"][:3] == [False, 0, 0.0]


def test_positive_and_negative_alike_sample_as_in_vanilla(host: Host, checkpoint) -> None:
    alike = {**on_lab.LINKS, "negative": ["mem", 0]}
    out = host.run(Feature().prompt(a=on_lab.ksampler(**alike), b=on_lab.deferred(**alike)), checkpoint)
    assert same_bits(out["a"], out["b"])


@pytest.mark.parametrize("kind", ["scaled fp8", "quantized tensor"])
def test_weights_in_eight_bits_are_refused_by_name_with_the_way_out(host: Host, checkpoint, kind: str) -> None:
    given = {**checkpoint, "m": {"scaled fp8": scaled_fp8, "quantized tensor": quantized}[kind](host)}
    message = refused(host, Feature().prompt(o=on_lab.optimizer()), given)
    assert "cannot be differentiated" in message and "search or batch-wise" in message and "weight is" in message
    for method in ("search", "batch-wise"):
        found = host.run(Feature().prompt(o=on_lab.optimizer(method, candidates=2)), given)["o"]
        assert torch.isfinite(found[1].after).all()


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
    seen = view(host, own, **more)
    assert seen["warning"] == "4 of 4 images had not left the basin at start_percent 0.05: raise it."
    measured = seen["headline"].startswith("Memorized: 4 of 4 images; guidance starts at step")
    assert seen["done"] and measured == (way != "curve")
    assert len(seen["begins"]) == 4 and all(len(series["lines"]) == 4 for series in seen["series"])


def test_a_deferral_says_whether_it_acts_and_from_which_step(host: Host) -> None:
    seen = view(host, detector())  # each thing is said once
    assert seen["warning"] == "Memorized prompt: 4 of 4 images start inside a basin."
    assert seen["headline"].startswith("Out of the basin from step")
    shown = text_view("2 of 4 images may be copies.\nlatent\n- image 1", "2 of 4 images may be copies.")
    assert shown["headline"] == "latent" and shown["notes"] == ["- image 1"]
    for own in (deferred(start_percent=0.8), deferred("static", start_percent=0.05), deferred("off")):
        assert view(host, own)["warning"] == ""
    late = "Same as KSampler: with denoise 0.40, sampling starts after start_percent."
    for own, said in (
        (deferred("off"), "Off: same as KSampler."),
        (patch("off"), "Off"),
        (guider("off"), "Off"),
        (deferred("static", steps=10, start_percent=0.3), "Guidance starts at step 4."),
        (deferred("static", start_percent=0.5, denoise=0.4), "Guidance starts at step 1."),
        (deferred(denoise=0.4), late),
        (deferred(denoise=0.0), "denoise 0.00"),
    ):
        assert view(host, own)["headline"].startswith(said)
    headline = view(host, patch(), k=ksampler(model=["own", 0], denoise=0.4))["headline"]
    assert headline.startswith("Guided from the first step") and "`start_percent` 0.50" in headline
    one = view(host, deferred(start_percent=0.05), batch=1)["warning"]
    assert one.startswith("1 of 1 image had not left"), "no plural"


@pytest.mark.parametrize("own", [deferred(cfg=1.0), guider(cfg=1.0), patch()])
def test_a_deferral_says_that_it_needs_guidance(host: Host, own: dict) -> None:
    more = {"MG_DeferredCFGGuider": custom(["own", 0]), "MG_DeferredCFG": {"k": ksampler(model=["own", 0], cfg=1.0)}}
    said = view(host, own, **more.get(own["class_type"], {}))
    assert said["warning"].endswith("there is no guidance to defer, so this node changed nothing. Set cfg above 1.")
    assert said["headline"] == "Nothing was deferred."


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
