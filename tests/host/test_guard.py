"""Memorization Guard (Simple), between a model and samplers that know nothing of it."""

import re
from typing import Any

import comfy.sample
import pytest
import torch

from support.executor import Host, NodeError
from support.graphs import MEMORIZED, MODEL, NULL, ORDINARY, custom, deferred, ksampler, lab, node
from support.graphs.checkpoint import base, training_images
from support.graphs.checkpoint import ksampler as on_lab
from support.graphs.features import NEEDS_EASY_CACHE
from support.lab_pack import exact
from support.outcomes import copies, same_bits
from support.paths import PACK

GUARDED = ["g", 0]


def every(prompt: str) -> exact.TextEncoder:
    """A CLIP to which every text but the empty one is this prompt of the exact model."""
    return exact.TextEncoder(lambda text: exact.conditioning(prompt if text else "null"))


CLIP = {"clip": every("ordinary")}


def guard(**changed: Any) -> dict[str, Any]:
    return node("MG_Guard", **{"model": ["lab", 0], "clip": ["clip", 0], "strength": "normal", **changed})


def test_the_stronger_the_fewer_copies_and_an_ordinary_prompt_stays_as_it_is(host: Host) -> None:
    strengths = ("gentle", "normal", "strong")
    nodes = {f"g {s}": guard(strength=s) for s in strengths} | {s: ksampler(model=[f"g {s}", 0]) for s in strengths}
    ordinary = {"c": ksampler(positive=ORDINARY), "d": ksampler(positive=ORDINARY, model=["g normal", 0])}
    out = host.run({"lab": lab(64), "a": ksampler(), **nodes, **ordinary}, CLIP)
    gentle, normal, strong = (copies(out[s]) for s in strengths)
    assert copies(out["a"]) >= 0.95 and gentle >= normal >= strong
    assert normal <= 0.25 and strong <= 0.02
    assert same_bits(out["c"], out["d"])


def test_it_measures_a_model_once_for_each_size_and_with_the_users_ordinary_prompts(host: Host, counted: Any) -> None:
    model, calls = counted
    out = host.run({"lab": lab(1), "g": guard(model=["m", 0])}, {**CLIP, "m": model})
    plain = 2 * 50
    again = {"lab": lab(1), "b": ksampler(model=["guarded", 0], positive=ORDINARY)}
    first = host.run(again, {"guarded": out["g"][0]})
    assert calls.pop_rows() == plain + 8 + 8 * 12, "four steps ahead of the noise, and of each of 12 prompts"
    second = host.run(again, {"guarded": out["g"][0]})
    assert calls.pop_rows() == plain + 8
    assert same_bits(first["b"], second["b"])
    # Two instead of twelve; for a prompt that is as loud as the ordinary ones, nothing is memorized.
    own = guard(model=["m", 0], ordinary_prompts=" 1girl, garden; castle, night; ")
    nodes = {"lab": lab(4), "g": own, "b": ksampler(model=GUARDED), "a": ksampler()}
    out = host.run(nodes, {"clip": every("memorized"), "m": model})
    assert calls.pop_rows() == 4 * (2 * 50 + 8) + 8 * 2
    assert same_bits(out["b"], out["a"])


def test_a_cfg_that_another_pack_gives_as_a_tensor_is_measured_once(host: Host, counted: Any) -> None:
    model, calls = counted
    guarded = host.run({"lab": lab(1), "g": guard(model=["m", 0])}, {**CLIP, "m": model})["g"][0]
    calls.pop_rows()
    for cost in (2 * 50 + 8 + 8 * 12, 2 * 50 + 8):
        runs = {"lab": lab(1), "b": ksampler(model=["guarded", 0], positive=ORDINARY, cfg=["scale", 0])}
        host.run(runs, {"guarded": guarded, "scale": torch.tensor(7.5)})
        assert calls.pop_rows() == cost


@pytest.fixture
def half_quiet(host: Host, searches: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Thresholds of a model of which about every second noise of the memorized prompt is quiet."""
    host.run({"lab": lab(32), "g": guard(strength="gentle"), "b": ksampler(model=GUARDED)}, CLIP)
    calibration = host.module(PACK, "mitigation.escape.calibration").Calibration
    monkeypatch.setattr(calibration, "memorized_threshold", float(searches[0][1].before.median()))


def test_it_begins_with_other_noise_where_the_seeds_own_is_pulled(host: Host, half_quiet: None) -> None:
    """The other half keeps KSampler's bits, and a sample is what it is alone."""
    whole = [0, 1, 2, 3, 4, 5, 6, 7]
    out = {}
    for rows in (whole, [3], [6]):
        given = {**CLIP, "rows": {"samples": torch.zeros(len(rows), *exact.SHAPE), "batch_index": rows}}
        runs = {"a": ksampler(latent_image=["rows", 0]), "b": ksampler(latent_image=["rows", 0], model=GUARDED)}
        out[tuple(rows)] = host.run({"lab": lab(1), "g": guard(strength="strong"), **runs}, given)
        if rows == whole:
            note = next(note for note in host.views("g")[-1]["notes"] if "began with different noise" in note)
    plain, guarded = (out[tuple(whole)][name][0]["samples"] for name in ("a", "b"))
    changed = sum(not torch.equal(one, other) for one, other in zip(plain, guarded, strict=True))
    assert 1 <= int(note[0]) <= changed <= 7, "what pulls at its first step alone is only deferred"
    assert note[1:].startswith(" of 8 images began")
    for row in (3, 6):
        torch.testing.assert_close(out[(row,)]["b"][0]["samples"][0], guarded[row], atol=1e-4, rtol=0)


@pytest.fixture
def all_loud(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ahead says that all noises are pulled; the first step alone would say that none is."""
    guarding = host.module(PACK, "methods.self_calibration").SelfCalibration
    calibration = host.module(PACK, "mitigation.escape.calibration").Calibration
    high, low = (calibration(torch.full((12, 1), d)) for d in (10.0, 1e-9))
    monkeypatch.setattr(guarding, "at", lambda *_: high)
    monkeypatch.setattr(guarding, "ahead", lambda *_: low)


def test_a_loud_noise_costs_one_step(host: Host, counted: Any, searches: list[Any], all_loud: None) -> None:
    """Of the seed's own four steps are measured, of the 23 others one."""
    model, calls = counted
    nodes = {"lab": lab(2), "g": guard(model=["m", 0]), "b": ksampler(model=GUARDED)}
    host.run(nodes, {**CLIP, "m": model})
    assert calls.pop_rows() == 2 * (2 * 50 + 8 + 2 * 23)
    assert searches[0][1].evaluations.tolist() == [8 + 2 * 23] * 2


def test_what_finds_no_quiet_noise_is_deferred(host: Host, all_loud: None) -> None:
    out = host.run({"lab": lab(16), "g": guard(), "a": ksampler(), "b": ksampler(model=GUARDED)}, CLIP)
    assert copies(out["a"]) >= 0.95 and copies(out["b"]) <= 0.25
    view = host.views("g")[-1]
    assert "Memorized: 16 of 16 images" in view["headline"]
    assert "For 16 images, every noise that was tried pulls too hard." in view["notes"]


def test_a_second_stage_and_a_masked_image_keep_their_noise(host: Host, half_quiet: None) -> None:
    given = {**CLIP, "painted": {"samples": torch.randn(4, *exact.SHAPE), "noise_mask": torch.ones(4, 16, 16)}}
    links = {"latent_image": ["painted", 0], "model": GUARDED}
    runs = {"b": ksampler(**links), "c": ksampler(**links, denoise=0.6)}
    host.run({"lab": lab(1), "g": guard(), **runs}, given)
    assert not [note for view in host.views("g") for note in view["notes"] if "different noise" in note]


class OtherNoise:
    """A NOISE of another pack: with a structure and a std of 1, or the host's own."""

    def __init__(self, structured: bool) -> None:
        self.seed, self.structured = 5, structured

    def generate_noise(self, latent: dict) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))
        waves = 2**0.5 * torch.linspace(0, 6.3, noise.shape[-1]).sin().expand_as(noise)
        return 0.95 * noise + 0.31 * waves if self.structured else noise


@pytest.mark.parametrize("structured", [True, False])
def test_noise_that_is_not_the_seeds_own_is_kept(
    host: Host, all_loud: None, searches: list[Any], structured: bool
) -> None:
    """It was chosen: another order of its numbers would destroy what it is."""
    given, empty = {**CLIP, "n": OtherNoise(structured)}, torch.zeros(4, *exact.SHAPE)
    assert 0.9 < float(given["n"].generate_noise({"samples": empty}).std()) < 1.1
    out = []
    for model in (MODEL, GUARDED):
        guiding = node("CFGGuider", model=model, positive=MEMORIZED, negative=NULL, cfg=7.0)
        nodes = {"lab": lab(4), "g": guard(), "cfg": guiding, **custom(["cfg", 0], ["n", 0])}
        out.append(host.run(nodes, given)["custom"])
    notes = " ".join(host.views("g")[-1]["notes"])
    assert (not searches) == ("so this node kept the noise as it is" in notes) == same_bits(*out) == structured


def test_it_knows_what_the_host_draws(host: Host) -> None:
    """For a whole batch, and for a latent out of one: image by image, in any order, and the same one twice."""
    is_drawn = host.module(PACK, "adapter.noise").is_drawn_noise
    for shape in ((5, *exact.SHAPE), (3, 3, 5, 7), (1, 16, 3, 4, 4)):
        latent = torch.zeros(shape)
        for index in (None, [2] * shape[0], list(range(40, 40 + shape[0]))[::-1]):
            state = torch.manual_seed(3).get_state()
            noise = comfy.sample.prepare_noise(latent, 2**64 - 1, index)
            torch.default_generator.set_state(state)
            assert is_drawn(noise, 2**64 - 1) and not is_drawn(noise, 8) and not is_drawn(noise, None)
            assert torch.equal(torch.default_generator.get_state(), state)
            noise[-1, ..., 0] *= 1.001
            assert not is_drawn(noise, 2**64 - 1)


def test_it_works_under_the_packs_own_sampler_and_says_what_it_measured(host: Host) -> None:
    out = host.run({"lab": lab(8), "g": guard(), "b": deferred("off", model=GUARDED)}, CLIP)
    assert copies(out["b"]) <= 0.25
    first, *_, last = host.views("g")
    assert first["headline"].startswith("Measuring 12 ordinary prompts") and not first["done"]
    assert any(note.startswith("Measured on this model") for note in last["notes"])


def test_with_a_folder_it_steers_away_from_its_images_and_needs_both(host: Host, checkpoint: dict[str, Any]) -> None:
    """On the small lab checkpoint, where the deferral alone leaves copies."""
    training_images(host, "works")
    nodes = {"g": guard(model=["m", 0], folder="works", vae=["vae", 0], strength="gentle")}
    host.run({**base(4, 12), **nodes, "b": on_lab(model=GUARDED, steps=10)}, checkpoint)
    view = host.views("g")[-1]
    assert any(re.match("[34] of 4 images steered away", note) for note in view["notes"]), view["notes"]
    (host.base / "input" / "nothing").mkdir(parents=True, exist_ok=True)
    for folder, vae, says in (("nothing", {}, "`vae` is not connected"), ("no such", {"vae": ["v", 0]}, "no such")):
        with pytest.raises(NodeError, match=says):
            host.run({"lab": lab(1), "g": guard(folder=folder, **vae), "k": ksampler(model=GUARDED)}, {**CLIP, "v": 1})


def test_a_folders_references_are_kept_for_a_few_sizes(host: Host, checkpoint: dict[str, Any]) -> None:
    """A detailer samples at ever new ones."""
    training_images(host, "works", 3)
    sets = host.module(PACK, "references.folder_sets")
    kept = sets.FolderSets("works", checkpoint["vae"], "a node", lambda references: references)
    with torch.inference_mode():
        first = kept.at((4, 8, 8))
        assert first.thumbnails is None and kept.at((4, 8, 8)) is first
        for width in range(9, 9 + sets.MOST_SIZES):
            kept.at((4, 8, width))
        assert len(kept.made) == sets.MOST_SIZES and kept.at((4, 8, 8)) is not first


@NEEDS_EASY_CACHE
def test_its_look_ahead_neither_reads_nor_writes_a_step_cache(host: Host, checkpoint: Any, searches: list) -> None:
    cache = node("EasyCache", model=["m", 0], reuse_threshold=0.5, start_percent=0.0, end_percent=1.0, verbose=False)
    for model in (["m", 0], ["e", 0]):
        nodes = {"e": cache, "g": guard(model=model, strength="gentle")}
        host.run(base(2) | nodes | {"b": on_lab(model=GUARDED, steps=4)}, checkpoint)
    assert torch.equal(searches[0][1].history, searches[1][1].history)


def test_two_equal_guards_are_two_nodes(host: Host) -> None:
    """The host would keep one result for both, and show the second sampler's run on the first guard."""
    nodes = {"g": guard(), "h": guard(), "a": ksampler(model=GUARDED), "b": ksampler(model=["h", 0], seed=2)}
    host.run({"lab": lab(2), **nodes}, CLIP)
    first, second = (host.views(name)[-1]["series"] for name in ("g", "h"))
    assert first and second and first != second


def test_a_pull_below_the_threshold_and_far_above_ordinary_ones_is_said_and_strong_acts_on_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the ordinary prompts is memorized as well, which raises the threshold."""

    def run(strength: str) -> tuple[dict[str, Any], bool]:
        nodes = {"lab": lab(1), "a": ksampler(), "g": guard(strength=strength), "b": ksampler(model=GUARDED)}
        out = host.run(nodes, CLIP)
        return host.views("g")[-1], same_bits(out["a"], out["b"])

    pull = run("normal")[0]["series"][0]["lines"][0][0]
    magnitudes = torch.tensor([pull / 2] * 11 + [30 * pull])[:, None, None]
    monkeypatch.setattr(host.module(PACK, "methods.self_calibration"), "measured", lambda *_: magnitudes)
    view, same = run("normal")
    assert same and view["headline"].startswith("Fine")
    said = next(note for note in view["notes"] if note.startswith("Your prompt pulls"))
    assert said.endswith("times as hard. If an image looks like a copy, set `strength` to strong.")
    view, same = run("strong")
    assert not same and view["headline"].startswith("Memorized")
    assert any("fill `ordinary_prompts`" in note for note in view["notes"]), "barely above the threshold"


def test_at_cfg_1_it_does_nothing_and_says_so(host: Host, counted: Any) -> None:
    model, calls = counted
    links = {"cfg": 1.0, "model": ["m", 0]}
    guarded = {"g": guard(model=["m", 0]), "b": ksampler(cfg=1.0, model=GUARDED)}
    out = host.run({"lab": lab(2), "a": ksampler(**links), **guarded}, {**CLIP, "m": model})
    assert same_bits(out["a"], out["b"]) and calls.pop_rows() == 2 * 2 * 50
    assert "changed nothing" in host.views("g")[-1]["warning"]


def test_what_new_noise_saved_is_not_called_fine(host: Host) -> None:
    pull = torch.full((1, 4), 0.01)
    none = torch.zeros(1, dtype=torch.long)
    found = host.module(PACK, "mitigation.escape.curve").EscapeCurve(
        pull, pull, torch.arange(4.0, -1.0, -1.0), 16, none, none.bool(), 0.02
    )
    told = host.module(PACK, "drawing.guard_view").GuardView(None, [])
    assert told.view(found, done=True)["headline"].startswith("Fine: the pull is 0.0100")
    told.searched = "1 of 1 image began with different noise, because the seed's own pulled too hard."
    said = told.view(found, done=True)["headline"]
    assert said == "Memorized prompt, but no strong pull is left: the pull is 0.0100, below the threshold 0.0200."
