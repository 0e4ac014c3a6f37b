"""Memorization Guard (Simple) on the small lab: it measures the model that is sampled, whatever stands behind it."""

from typing import Any

import pytest
import torch

from support.executor import Host
from support.graphs import node
from support.graphs.checkpoint import base, deferred, ksampler
from support.lab_files import EXTRAS, lora
from support.outcomes import same_bits
from support.paths import PACK


def freeu(model: str, strength: float) -> dict[str, Any]:
    return node("FreeU", model=[model, 0], b1=1 + strength, b2=1 + strength, s1=0.9, s2=0.2)


def guard(model: str) -> dict[str, Any]:
    """With few prompts and noises, because it measures and searches anew in every test."""
    own = {"strength": "gentle", "ordinary_prompts": "a blue ring; a red disc"}
    return node("MG_Guard", model=[model, 0], clip=["clip", 0], **own)


@pytest.mark.parametrize("patch", [lora, freeu])
def test_a_patch_behind_it_is_measured_as_one_before_it(
    host: Host, checkpoint: Any, searches: list, patch: Any
) -> None:
    """The guard's own result stays in the host's cache when a node behind it changes."""

    def run(model: str, nodes: dict[str, Any], given: dict[str, Any]) -> tuple[Any, Any, str, bool]:
        out = host.run({**base(2), **nodes, "b": ksampler(model=[model, 0], steps=2)}, {**checkpoint, **given})
        notes = host.views("g")[-1]["notes"]
        pull = next(note for note in notes if note.startswith("Measured on this model"))
        return out["b"], searches[-1][1].history, pull, any("put this node after the LoRA" in note for note in notes)

    found = {}
    for strength in (0.5, 1.5):
        before = {"p": patch("m", strength), "g": guard("p")}
        found[strength] = run("g", before, {})
    assert found[0.5][2] != found[1.5][2]
    guarded = host.run({"g": guard("m")}, checkpoint)["g"][0]
    for strength in (0.5, 1.5):
        image, history, pull, said = run("p", {"p": patch("guarded", strength)}, {"guarded": guarded})
        assert same_bits(image, found[strength][0]) and torch.equal(history, found[strength][1])
        assert pull == found[strength][2] and said == (patch is lora)


def test_the_same_patches_are_measured_once(host: Host, checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler of this pack, and a detailer, clones the model for every run."""
    calibrating, runs = host.module(PACK, "methods.self_calibration"), []
    measured = calibrating.measured
    monkeypatch.setattr(calibrating, "measured", lambda *a, **k: runs.append(a) or measured(*a, **k))
    patched = host.run({"g": guard("m"), "l": lora("g", 1.0), "f": freeu("l", 0.2)}, checkpoint)["f"][0]
    for seed in (1, 2):
        sampler = deferred("off", model=["f", 0], seed=seed, steps=2)
        host.run({**base(1), "b": sampler}, {**checkpoint, "f": patched})
    assert len(runs) == 1
    again = {"l": lora("f", 0.5), "b": ksampler(model=["l", 0], steps=2)}
    host.run({**base(1), **again}, {**checkpoint, "f": patched})
    assert len(runs) == 2


def test_measuring_within_a_run_leaves_the_hooks_of_its_prompts_alone(
    host: Host, checkpoint: Any, searches: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = host.module(PACK, "mitigation.escape.calibration").Calibration
    monkeypatch.setattr(calibration, "memorized_threshold", 1000.0)  # so that the guard changes nothing
    hooked, out = EXTRAS["LoRA on the positive"], []
    for model in ("m", "g"):
        nodes = {"g": guard("m"), "b": ksampler(**{**hooked.links, "model": [model, 0], "steps": 3})}
        out.append(host.run(hooked.prompt(**nodes), checkpoint)["b"])
    assert searches and same_bits(*out)
