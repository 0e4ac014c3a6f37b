"""Inputs that are probably not meant: the run works, and a sentence says what to change."""

import logging
from typing import Any

import pytest
import torch

from support import graphs
from support.accidents import hooked
from support.executor import Host
from support.graphs import checkpoint as on_lab
from support.graphs import deferred, detector, lab, optimizer
from support.graphs.features import Feature
from support.lab_files import quantized, scaled_fp8
from support.lab_pack import exact
from support.outcomes import refused, same_bits, samples


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


@pytest.mark.parametrize("start", ["sampler", "detector"])
def test_a_noise_that_was_found_at_another_level(host: Host, caplog, start: str) -> None:
    """All of the host's schedulers begin at the noise's own level."""
    late = graphs.node("BasicScheduler", model=graphs.MODEL, scheduler="normal", steps=20, denoise=0.5)
    use = {
        "sampler": deferred("off", noise=["o", 0], steps=20, denoise=0.5),
        "detector": detector(noise=["o", 0], sigmas=["s", 0]),
    }[start]
    prompt = {"lab": lab(1), "s": late, "o": optimizer("search", candidates=1), "use": use}
    hint = said(host, caplog, prompt)[1]
    assert "made for noise level 14.6" in hint and "`sigmas`" in hint
    for scheduler in ("normal", "karras", "simple", "beta", "sgm_uniform"):
        prompt["use"] = deferred("off", noise=["o", 0], scheduler=scheduler)
        assert said(host, caplog, prompt)[1] == "", scheduler
    prompt |= {"o": optimizer("search", candidates=1, sigmas=["s", 0]), "use": use}
    assert said(host, caplog, prompt)[1] == ""


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
