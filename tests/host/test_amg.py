"""AMG Guidance on the exact model, whose memorized latent is the one reference; beside other patches; its trace."""

from typing import Any

import pytest
import torch

from support.accidents import hooked
from support.executor import Host
from support.graphs import MODEL, ORDINARY, amg, deferred, ksampler, lab, node, optimizer, patch, references
from support.lab_pack import exact
from support.outcomes import GUIDED, copies, run, same_bits, samples, works

OFF = {"despecification": 0.0, "dissimilarity": 0.0}
GATE = {"memorized_threshold": 0.02}


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_sde", "uni_pc"])
def test_default_settings_work_with_every_kind_of_sampler(host: Host, name: str) -> None:
    """And leave an ordinary prompt's images as they are."""
    plan, ordinary = {"sampler_name": name}, {"sampler_name": name, "positive": ORDINARY}
    out = run(host, a=ksampler(**plan), g=amg(), b=ksampler(model=GUIDED, **plan))
    assert copies(out["a"]) >= 0.95
    assert copies(out["b"]) == 0
    out = run(host, batch=4, a=ksampler(**ordinary), g=amg(), b=ksampler(model=GUIDED, **ordinary))
    assert same_bits(out["a"], out["b"])


BEFORE_GATE = [(kind, {}) for kind in exact.PARAMETERISATIONS]
BEFORE_GATE += [("eps", {"cfg": 1.0}), ("eps", {"denoise": 0.6})]  # nothing can be told: the gate is open


@pytest.mark.parametrize(("kind", "changed"), BEFORE_GATE)
def test_a_prompt_that_pulls_is_steered_through_the_gate_as_without_it(host: Host, kind: str, changed: dict) -> None:
    nodes = {"g": amg(), "b": ksampler(model=GUIDED, **changed)}
    out = run(host, kind=kind, **nodes, h=amg(**GATE), c=ksampler(model=["h", 0], **changed))
    assert changed or copies(out["c"]) == 0
    assert same_bits(out["b"], out["c"])


def test_a_prompt_that_does_not_pull_passes_the_gate_even_beside_a_reference(host: Host) -> None:
    """The reference is what the ordinary prompt draws: without the gate it would be steered away from."""
    plain = run(host, batch=1, a=ksampler(positive=ORDINARY))
    given = {"works": {"samples": samples(plain["a"]).clone()}}
    plan = {"positive": ORDINARY}
    nodes = {"g": amg(), "b": ksampler(model=GUIDED, **plan), "h": amg(**GATE), "c": ksampler(model=["h", 0], **plan)}
    out = run(host, given, batch=1, **nodes)
    assert not same_bits(plain["a"], out["b"])
    assert same_bits(plain["a"], out["c"])


def test_scales_and_modes_of_0_change_nothing(host: Host) -> None:
    own = {"off": deferred("off", model=GUIDED), "dynamic": deferred(model=GUIDED)}
    nodes = {"a": ksampler(), "z": amg(**OFF), "b": ksampler(model=["z", 0]), "g": amg(), "c": ksampler(model=GUIDED)}
    out = run(host, batch=4, **nodes, **own)
    assert out["z"][0] is out["lab"][0] and same_bits(out["a"], out["b"])
    assert host.views("z")[-1]["headline"].startswith("Off: all three strengths are 0")
    assert same_bits(out["c"], out["off"])
    assert out["dynamic"][1].transition.max() > 0, "CFG was deferred as without guidance"


def test_each_guidance_does_its_part(host: Host) -> None:
    """Inside the basin the prediction hardly depends on x: the paper's gradient, through the model, is small there."""
    plan = {"gradient": "through model"}
    nodes = {"spe": amg(dissimilarity=0.0), "sim": amg(despecification=0.0), "weak": amg(**plan)}
    nodes["strong"] = amg(dissimilarity=100.0, **plan)
    out = run(host, batch=48, **nodes, **{f"k {name}": ksampler(model=[name, 0]) for name in nodes})
    found = {name: copies(out[f"k {name}"]) for name in nodes}
    assert 0.4 < found["spe"] < 0.9, "despecification alone: scale 1 is still inside the basin"
    assert 0 < found["weak"] < 0.4 and found["sim"] == found["strong"] == 0


SAMPLED = ksampler(model=GUIDED)
WAYS: dict[str, dict] = {
    "every second evaluation": {"g": amg(every=2), "b": SAMPLED},
    "constant growth": {"g": amg(dissimilarity_growth="constant"), "b": SAMPLED},
    "two sets": {
        **{"second": references(latents="other"), "h": amg(references=["second", 0])},
        **{"g": amg(model=["h", 0]), "b": SAMPLED},
    },
    "after a deferral": {"d": patch(), "g": amg(model=["d", 0]), "b": SAMPLED},
    "before a deferral": {"g": amg(), "d": patch(model=GUIDED), "b": ksampler(model=["d", 0])},
    "a gate before static guidance": {"g": amg(**GATE), "b": deferred("static", model=GUIDED, start_percent=0.3)},
    "a gate before dynamic guidance": {"g": amg(**GATE), "b": deferred(model=GUIDED, start_percent=0.3)},
    "with an optimized noise": {
        **{"g": amg(), "o": optimizer(max_iterations=20)},
        **{"b": deferred(model=GUIDED, noise=["o", 0])},
    },
    "from the memorized image": {"g": amg(), "b": ksampler(model=GUIDED, latent_image=["works", 0], denoise=0.7)},
}


@pytest.mark.parametrize("way", WAYS)
def test_it_leaves_no_copies(host: Host, way: str) -> None:
    other = {"other": {"samples": torch.randn(1, *exact.SHAPE, generator=torch.Generator().manual_seed(1))}}
    assert copies(run(host, other, **WAYS[way])["b"]) <= (0.05 if way.startswith("every") else 0)


def test_cfg_1_leaves_dissimilarity_alone_to_act_and_the_last_hook_does_not_undo_it(host: Host, counted) -> None:
    """The hook pulls to the memorized latent, patched on after AMG Guidance, and is seen by it."""
    model, calls = counted
    plan = {"g": amg(model=["m", 0]), "b": ksampler(model=GUIDED, cfg=1.0)}
    out = run(host, {"m": model}, batch=4, **plan)
    assert calls.pop_rows() == 4 * 50, "no second branch is asked for"
    assert copies(out["b"]) == 0
    guided = run(host, g=amg())["g"][0].clone()
    guided.set_model_sampler_post_cfg_function(lambda args: 0.5 * args["denoised"] + 0.5 * exact.x_mem())
    assert copies(run(host, {"m": guided}, b=ksampler(model=["m", 0]))["b"]) == 0


def test_the_node_says_what_each_run_did(host: Host) -> None:
    """Of each run afresh; Heun's second look at a step does not count."""
    guide = amg(despecification=0.0)
    model = run(host, batch=3, g=guide, b=ksampler(model=GUIDED, sampler_name="heun"))["g"][0]
    view = host.views("g")[-1]
    (closeness, *_), acted = view["series"], view["acted"]["dissimilarity"]
    assert "3 of 3 images steered away" in view["headline"]
    assert [len(line) for line in closeness["lines"]] == [50] * 3 and None not in closeness["lines"][0]
    assert closeness["limit"][0] == pytest.approx(0.5, abs=1e-3)
    assert closeness["limit"][-1] == pytest.approx(0.6, abs=0.01)
    assert all(row[0] > 0 and max(row) <= 4 + 1e-4 for row in acted), "no step is longer than its reach"
    run(host, {"m": model}, batch=2, b=ksampler(model=["m", 0]))
    assert "2 of 2 images steered away" in host.views("g")[-1]["headline"]
    run(host, batch=3, g=amg(), b=ksampler(model=GUIDED, positive=ORDINARY))
    assert "nothing was changed" in host.views("g")[-1]["headline"]


def test_with_other_patches(host: Host) -> None:
    """RescaleCFG replaces the guidance, PAG adds a post-CFG hook with a model call of its own."""
    rescale = node("RescaleCFG", model=MODEL, multiplier=0.3)
    pag = node("PerturbedAttentionGuidance", model=["r", 0], scale=3.0)
    guide = amg(model=["p", 0], clip=["clip", 0], deduplication=13.0)
    sampled = {"a": ksampler(model=["p", 0]), "b": ksampler(model=GUIDED)}
    prompt = {"lab": lab(12), "refs": references("memorized\nmemorized"), "r": rescale, "p": pag, "g": guide}
    out = host.run({**prompt, **sampled}, {"clip": exact.TextEncoder()} | works(2))
    assert copies(out["a"]) >= 0.9
    assert copies(out["b"]) == 0


def deduplicated(host: Host, captions: str, batch: int = 24, **changed: Any) -> tuple[dict, list[list[int]]]:
    """A run whose set holds the memorized latent three times, and what each model call evaluated."""
    batches: list[list[int]] = []

    def watched(apply_model, args):
        batches.append(args["cond_or_uncond"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    guide = amg(**{"model": ["m", 0], "clip": ["clip", 0], "deduplication": 13.0, **OFF, **changed})
    prompt = {"lab": lab(batch), "refs": references(captions), "g": guide, "b": ksampler(model=GUIDED)}
    return host.run(prompt, works(3) | {"m": hooked(exact.build(), watched), "clip": exact.TextEncoder()}), batches


def test_a_duplicated_caption_is_evaluated_in_a_call_of_the_hosts_shape(host: Host) -> None:
    out, batches = deduplicated(host, "memorized\nmemorized\nmemorized")
    sampler, caption = [b for b in batches if len(b) == 2], [b for b in batches if len(b) == 1]
    assert len(sampler) == 50 and len(sampler) + len(caption) == len(batches)
    assert all(b == [0] for b in caption), "labelled as the prompt; never a third entry"
    assert 0 < len(caption) <= 50 and [len(b) for b in batches[:3]] == [2, 1, 2]
    alone = run(host, s=amg(dissimilarity=0.0), a=ksampler(model=["s", 0]))
    assert abs(copies(out["b"]) - copies(alone["a"])) < 0.05, "the caption is the prompt: the same as despecification"


def test_only_a_duplicated_caption_is_steered_away_from(host: Host) -> None:
    """ε(y_N) = ε(∅) for the null prompt: duplicated, voted, and nothing to steer away from."""
    vanilla = run(host, a=ksampler())["a"]
    own, batches = deduplicated(host, "memorized\nordinary\nanother")
    assert all(len(b) == 2 for b in batches) and same_bits(own["b"], vanilla)
    null, batches = deduplicated(host, "null\nnull\nmemorized")
    assert any(len(b) == 1 for b in batches)
    torch.testing.assert_close(samples(null["b"]), samples(vanilla), atol=1e-4, rtol=0)


def test_references_are_centred_once_a_plan_and_only_when_they_are_needed(host: Host, monkeypatch) -> None:
    plans, centred = host.module("memorization_guard", "methods.amg.plan"), []
    real = plans.centre_all
    monkeypatch.setattr(plans, "centre_all", lambda *given: centred.append(1) or real(*given))
    run(host, g=amg(), b=ksampler(model=GUIDED, steps=2), c=ksampler(model=GUIDED, steps=3))
    assert len(centred) == 1, "for both runs of one patched model"
    node = amg(memorized_threshold=10.0)
    run(host, g=node, b=ksampler(model=GUIDED, steps=2))
    assert len(centred) == 1, "no prompt pulls: nothing is compared"
