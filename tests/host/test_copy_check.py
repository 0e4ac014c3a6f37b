"""Copy Check on the small lab's own images and on every metric."""

import dataclasses
import shutil
from functools import partial
from typing import Any

import comfy.sd
import numpy as np
import pytest
import torch
from comfy_execution.validation import validate_node_input
from PIL import Image
from safetensors.torch import save_file

import nodes
from memorization_guard.mitigation.references.weights_fingerprint import weights_fingerprint
from support import graphs
from support.copy_detectors import random_sscd
from support.executor import Host, NodeError, Prompt
from support.graphs import node
from support.graphs.checkpoint import amg, base, ksampler, text, training_images
from support.outcomes import fails
from support.small_lab import COPY_RMSE, TRAINING_IMAGES, rmse, training_pairs

MEMORIZED, ORDINARY = (3, 11), ("a ring", "a red disc")
check = partial(graphs.check, "r", vae=["vae", 0])


@pytest.fixture(scope="module")
def lab(host: Host, checkpoint: dict[str, Any]) -> dict[str, Any]:
    training_images(host, "training")
    return {**checkpoint, "r": host.run({"r": graphs.from_folder("training")}, checkpoint)["r"][0]}


def sample(prompt: str, batch: int, seed: int) -> Prompt:
    sampler = ksampler(steps=15, seed=seed)
    decoded = node("VAEDecode", samples=["k", 0], vae=["vae", 0])
    return {**base(batch, side=12), "mem": text(prompt), "k": sampler, "i": decoded}


def test_memorized_prompts_are_flagged_and_ordinary_ones_are_not(host: Host, lab: dict[str, Any]) -> None:
    """With the defaults, against the truth of the pixels: which images are copies, and of which original."""
    pairs, names = training_pairs(), [file.name for file in sorted(TRAINING_IMAGES.glob("*.png"))]
    copies, others = [], []
    for seed, (words, memorized) in enumerate([(pairs[i][0], i) for i in MEMORIZED] + [(t, None) for t in ORDINARY]):
        prompt = {**sample(words, 2, seed), "c": check()}
        out = host.run(prompt, lab)
        similarity, nearest, is_copy, summary, comparison, *_ = out["c"]
        pixels = (out["i"][0] * 255).round().byte().numpy()
        truth = [min(rmse(p, image) for _, image in pairs) < COPY_RMSE for p in pixels]
        assert [s > 0.85 for s in similarity] == truth == [memorized is not None] * 2
        (others if memorized is None else copies).extend(similarity)
        assert is_copy == (memorized is not None)
        assert f"{sum(truth)} of 2 images may be copies" in summary
        assert nearest.shape == (2, 256, 256, 3) and len(comparison) == 2
        if memorized is not None:
            assert summary.count(f"COPY?  {names[memorized]}") == 2
    assert min(copies) > max(others) + 0.1


def test_the_training_images_themselves(host: Host, lab: dict[str, Any]) -> None:
    """Each is its own nearest; upscaled or cropped to another size it is still found."""
    given = torch.from_numpy(np.stack([p for _, p in training_pairs()])).float() / 255
    larger = torch.nn.functional.interpolate(given.movedim(-1, 1), (192, 192), mode="bicubic").movedim(1, -1)
    prompt = {"a": check(), "b": check(images=["j", 0])}
    out = host.run(prompt, {**lab, "i": given, "j": larger})
    for name, least in (("a", 0.99), ("b", 0.9)):
        similarity, nearest, is_copy, *_ = out[name]
        assert min(similarity) > least and is_copy
        shown = torch.nn.functional.interpolate(nearest.movedim(-1, 1), (96, 96), mode="area").movedim(1, -1)
        assert (shown - given).square().mean().sqrt() < 0.03


def test_nothing_in_common_is_no_copy_whatever_the_size(host: Host, lab: dict[str, Any]) -> None:
    noise = torch.rand(2, 120, 77, 3, generator=torch.Generator().manual_seed(0))
    similarity, _, is_copy, summary, *_ = host.run({"c": check()}, {**lab, "i": noise})["c"]
    assert not is_copy and max(similarity) < 0.7 and "0 of 2 images may be copies" in summary


def test_as_the_last_node_it_shows_the_images_side_by_side(host: Host, lab: dict[str, Any]) -> None:
    given = torch.rand(3, 96, 96, 3)
    host.run({"c": check()}, {**lab, "i": given})
    shown = host.ui["c"]
    assert len(shown["images"]) == 3 and "0 of 3 images" in shown["text"][0]
    file = shown["images"][0]
    assert (host.base / "temp" / file["subfolder"] / file["filename"]).stat().st_size > 0
    view = host.views("c")[-1]
    assert "0 of 3 images may be copies" in view["headline"] and not view["warning"]


def test_to_branch_on(host: Host, lab: dict[str, Any]) -> None:
    """`is_copy` drives a BOOLEAN of another node: a copy's set is made without the folders inside."""
    copy = torch.from_numpy(training_pairs()[0][1].copy()).float()[None] / 255
    nested = host.base / "input" / "branch" / "inside"
    shutil.copytree(TRAINING_IMAGES, nested, dirs_exist_ok=True)
    shutil.copy(TRAINING_IMAGES / "00 Harbour at Dawn.png", nested.parent)
    prompt = {"c": check(), "b": graphs.from_folder("branch", subfolders=["c", 2])}
    assert host.run(prompt, {**lab, "i": copy})["b"][1] == 17
    assert host.run(prompt, {**lab, "i": torch.rand(copy.shape)})["b"][1] == 1
    shutil.rmtree(nested.parent)


def test_the_images_come_out_as_they_came_in(host: Host, lab: dict[str, Any]) -> None:
    """With their transparency: they are what the node tells the user to save."""
    drawn = torch.rand(2, 96, 96, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat(host.run({"c": check()}, {**lab, "i": drawn})["c"][5]), drawn)


def test_another_vae_than_the_sets_is_noted(host: Host, lab: dict[str, Any]) -> None:
    own = lab["vae"].get_sd()

    def note(weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32, **changed: Any) -> str:
        with torch.inference_mode():
            vae = comfy.sd.VAE(sd={n: w.to(dtype) for n, w in weights.items()}, dtype=dtype)
        given = {**lab, "vae": vae, "i": torch.rand(1, 96, 96, 3), "s": dataclasses.replace(lab["r"], **changed)}
        prompt = {"c": graphs.check("s", vae=["vae", 0]), "g": amg(references=["s", 0], vae=["vae", 0])}
        said = host.run({**base(1, 12), **prompt, "k": ksampler(model=["g", 0])}, given)["c"][3]
        for own, view in (("c", "warning"), ("g", "notes")):  # what no user may miss
            assert ("VAE" in said) == ("VAE" in str(host.views(own)[-1][view]))
        return said

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert "VAE" not in note(own, dtype)
    assert "VAE" not in note({n: 2 * w if "decoder." in n else w for n, w in own.items()})
    tuned = {n: w * (1 + 0.01 * torch.randn_like(w)) for n, w in own.items()}
    assert "a different VAE" in note(tuned)
    older = lab["r"].model_hash.partition(":")[0]
    assert "VAE" not in note(own, model_hash=older)
    assert "unknown whether the connected VAE" in note(tuned, model_hash=older)


def test_what_amg_steered_is_to_be_checked_with_another_metric(host: Host, lab: dict[str, Any]) -> None:
    """Other images of the same workflow are not: a cached result would say so in workflows without AMG, too."""
    guided = {"g": amg(references=["r", 0], vae=["vae", 0]), "k": ksampler(steps=2, model=["g", 0])}
    prompt = {**sample("a ring", 1, 1), **guided, "c": check(), "o": check(images=["j", 0])}
    out = host.run(prompt, {**lab, "j": torch.rand(1, 96, 96, 3)})
    assert ["Check with another metric" in out[node][3] for node in ("c", "o")] == [True, False]


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_other_metrics(host: Host, clip_vision: Any, metric: str) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 3, 4, 4, generator=generator)
    known = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").movedim(1, -1)
    new = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=generator), (64, 64), mode="bilinear")
    copies = (known[:4] + 0.02 * torch.randn(known[:4].shape, generator=generator)).clamp(0, 1)
    given = {"k": known, "i": torch.cat([copies, new.movedim(1, -1)]), "descriptor": clip_vision}
    limits = {"threshold": 0.998, "nl2_threshold": 1.0}
    prompt = {"r": graphs.from_images(metric, images=["k", 0]), "c": graphs.check("r", **limits)}
    similarity, nearest, is_copy, summary, *_ = host.run(prompt, given)["c"]
    limit = -1.0 if metric == "nL2" else 0.998
    assert [s > limit for s in similarity] == [True] * 4 + [False] * 4, similarity
    assert is_copy and "4 of 8 images may be copies" in summary and "image 1:" in summary
    assert nearest.shape[0] == 8


@pytest.mark.parametrize("file", ["tiny.safetensors", "tiny.pt"])
def test_the_copy_detector_over_real_links(host: Host, file: str) -> None:
    """From its file to an alarm, and the host's CLIP_VISION fits the same socket."""
    folder = host.base / "models" / "copy_detection"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: w.clone() for n, w in random_sscd().state_dict().items()}
    (save_file if file.endswith("safetensors") else torch.save)(weights, str(folder / file))
    known = torch.rand(2, 64, 80, 3, generator=torch.Generator().manual_seed(0))
    prompt = {
        "d": node("MG_LoadCopyDetector", file=file),
        "r": graphs.from_images("descriptor", images=["k", 0], descriptor=["d", 0]),
        "c": graphs.check("r", images=["k", 0]),
    }
    out = host.run(prompt, {"k": known})
    torch.testing.assert_close(torch.tensor(out["c"][0]), torch.ones(2), atol=2e-3, rtol=0)
    assert out["r"][0].descriptor_name == f"SSCD ({file})"
    assert out["d"][0].fingerprint == weights_fingerprint(weights)
    (folder / file).unlink()
    sockets = nodes.NODE_CLASS_MAPPINGS["MG_ReferencesFromImages"].INPUT_TYPES()["optional"]["descriptor"][0]
    assert validate_node_input("CLIP_VISION", sockets) and validate_node_input("MG_DESCRIPTOR", sockets)
    assert not validate_node_input("VAE", sockets)


@pytest.mark.parametrize(
    ("images", "links", "says"),
    [
        (torch.rand(2, 96, 96, 3), {}, "Copy Check: the latent metric needs `vae`"),
        (torch.rand(0, 96, 96, 3), {"vae": ["vae", 0]}, "Copy Check: `images` is empty"),
        (torch.full((2, 96, 96, 3), torch.nan), {"vae": ["vae", 0]}, "Copy Check: `images` holds NaN"),
    ],
)
def test_what_is_missing_is_named(host: Host, lab, images: torch.Tensor, links: dict, says: str) -> None:
    assert says in fails(host, {"c": graphs.check("r", **links)}, {**lab, "i": images}).message


def test_a_set_of_another_vae_or_without_its_descriptor(host: Host, lab: dict[str, Any]) -> None:
    other = {"samples": torch.randn(1, 16, 12, 12)}
    made = host.run({"r": graphs.references(latents="l")}, {"l": other})["r"][0]
    with pytest.raises(NodeError, match="16 × 12 × 12, but these images give 4 × 12 × 12") as caught:
        host.run({"c": check()}, {**lab, "r": made, "i": torch.rand(1, 96, 96, 3)})
    assert "`references`" in caught.value.message
    sets = host.module("memorization_guard", "mitigation.references.reference_set")
    alone = sets.ReferenceSet("descriptor", torch.ones(1, 8).half(), (8,), ("",), ("a",), None, "SSCD (mine)")
    with pytest.raises(NodeError, match=r"SSCD \(mine\), which is not loaded. Connect it to `descriptor`"):
        host.run({"c": graphs.check("s", vae=["vae", 0])}, {**lab, "s": alone, "i": torch.rand(1, 96, 96, 3)})


def test_a_set_without_images_still_names_them(host: Host, lab: dict[str, Any]) -> None:
    made = host.run({"r": graphs.references(latents="l")}, {"l": {"samples": torch.randn(2, 4, 12, 12)}})["r"][0]
    out = host.run({"c": check()}, {**lab, "r": made, "i": torch.rand(3, 96, 96, 3)})["c"]
    assert out[1].shape == (3, 64, 64, 3) and out[4].shape[0] == 3 and "image 1:" in out[3]


@pytest.mark.parametrize("metric", ["latent", "nL2"])
def test_a_copy_that_was_mirrored_or_moved_is_found(host: Host, lab: dict[str, Any], metric: str) -> None:
    """Moved by 6 %; the latents of the small lab, 12 elements a side, are too small to follow a shift."""
    training = torch.from_numpy(np.stack([image for _, image in training_pairs()[:4]])).float() / 255
    side = training.shape[1]
    by = 0 if metric == "latent" else 6
    moved = torch.nn.functional.pad(training.movedim(-1, 1), (by, 0, by, 0), mode="replicate")[..., :side, :side]
    given = {**lab, "i": torch.cat([training.flip(2), moved.movedim(1, -1)])}
    if metric == "nL2":  # it needs more than 50
        many = {"i": torch.cat([training, torch.rand(47, side, side, 3)])}
        given["r"] = host.run({"r": graphs.from_images("nL2")}, many)["r"][0]
    out = host.run({"c": check()}, given)["c"]
    clean, (copies,) = out[5:7]
    assert len(copies) == 8 and out[2], out[3]
    assert not isinstance(clean[0], torch.Tensor), "nothing behind `clean` is to run"


def test_a_folder_of_finished_images_of_any_size_is_one_check(host: Host, lab: dict[str, Any]) -> None:
    if "LoadImageDataSetFromFolder" not in nodes.NODE_CLASS_MAPPINGS:
        pytest.skip("newer hosts read folders")
    folder = host.base / "input" / "finished"
    folder.mkdir()
    others = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (90, 70 + i, 3), "uint8")) for i in range(2)]
    for i, image in enumerate([others[0], Image.fromarray(training_pairs()[0][1]).resize((200, 200)), others[1]]):
        image.save(folder / f"{i}.png")
    prompt = {"i": node("LoadImageDataSetFromFolder", folder="finished"), "c": check()}
    prompt["s"] = node("SaveImage", images=["c", 5], filename_prefix="clean")
    given = {k: v for k, v in lab.items() if k != "i"}
    similarity, nearest, is_copy, summary, comparison, clean, copies, _ = host.run(prompt, given)["c"]
    assert len(similarity) == len(nearest) == len(comparison) == 3 and is_copy
    assert "1 of 3 images may be a copy" in summary == host.ui["c"]["text"][0]
    assert [c.shape for c in copies] == [(1, 200, 200, 3)] and len(clean) == 2
    assert len(host.ui["s"]["images"]) == 2 and len(host.ui["c"]["images"]) == 3
    assert host.views("c")[-1]["warning"] == "1 of 3 images may be a copy."
    prompt["c"]["inputs"]["threshold"] = ["t", 0]
    failed = fails(host, prompt | {"t": node("MG_CopyCheck", **check()["inputs"])}, given)
    assert "`threshold` is a list of 3. Only `images` may be a list: connect one." in failed.message
    with pytest.raises(ValueError, match="`images` is an empty list"):
        nodes.NODE_CLASS_MAPPINGS["MG_CopyCheck"].execute(images=[], references=[lab["r"]])
