"""LoRA Copy Audit on the small lab, with a LoRA that gives a damaged checkpoint its memory back."""

import csv
import io
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from memorization_guard.drawing.audit_plot import short_names
from memorization_guard.methods.lora_audit import parse_strengths
from memorization_guard.mitigation.copy_rates import LoraAudit, SampledImage, wilson
from support import graphs
from support.executor import Host, host_node
from support.graphs import node
from support.graphs.checkpoint import empty, text, training_images
from support.outcomes import fails, refused
from support.paths import PACK
from support.small_lab import training_pairs

CAPTIONS = [training_pairs()[i][0] for i in (5, 7)]
SAMPLING = {"steps": 15, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal"}
DAMAGED = node("LoraLoader", model=["m", 0], clip=["clip", 0], lora_name="memory.safetensors", strength_model=-1.0)
DAMAGED["inputs"]["strength_clip"] = 0.0
LAYERS = ("attn2.to_v.weight", "attn2.to_k.weight", "attn1.to_v.weight")


@pytest.fixture(scope="module")
def lab(host: Host, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A LoRA at strength 1 on the lab without it is the lab."""
    training_images(host, "audited")
    loras, draw, tensors = host.base / "models" / "loras", torch.Generator().manual_seed(3), {}
    for name, weight in checkpoint["m"].model.state_dict().items():
        if name.endswith(LAYERS):
            up = torch.randn(len(weight), 8, generator=draw) * weight.float().std() * 10 / 8**0.5
            down = torch.randn(8, weight.shape[1], generator=draw)
            key = name.removesuffix(".weight")
            tensors |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
    for epoch in ("", "-000002", "-000010"):
        save_file(tensors, loras / f"memory{epoch}.safetensors")
    save_file({"of another model.lora_up.weight": torch.ones(2, 2)}, loras / "other.safetensors")
    (loras / "broken.safetensors").write_bytes(b"no tensors")
    return {**checkpoint, "r": host.run({"r": graphs.from_folder("audited")}, checkpoint)["r"][0]}


@pytest.fixture
def seen(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The images that a run samples."""
    look, images = host.module(PACK, "references.kept_images").ImageLook, []
    real = look.__call__
    monkeypatch.setattr(look, "__call__", lambda self, image: (images.append(image.clone()), real(self, image))[1])
    return images


@pytest.fixture(autouse=True)
def forget(host: Host) -> None:
    for file in kept(host.base):
        file.unlink()


def kept(base: Path) -> list[Path]:
    return [f for f in base.glob("models/memorization_references/.audits/*/.*.unfinished") if "made_with" not in f.name]


def audit(**changed: Any) -> dict[str, Any]:
    own = {"model": ["d", 0], "clip": ["clip", 0], "vae": ["vae", 0], "references": ["r", 0], "latent_image": ["z", 0]}
    own |= {**SAMPLING, "loras": "memory", "strengths": "0, 0.5, 1", "captions": "\n".join(CAPTIONS), "seed": 5}
    return {"d": DAMAGED, "z": empty(3, 12), "a": node("MG_LoRAAudit", **{**own, **changed})}


def test_copies_rise_with_strength_and_each_image_is_the_hosts(host: Host, lab: dict[str, Any], seen: list) -> None:
    sheets, plot, table, summary = host.run(audit(), lab)["a"]
    lines = list(csv.DictReader(io.StringIO(table)))
    copies = [[line["copy"] for line in lines if line["strength"] == s].count("yes") for s in ("0", "0.5", "1")]
    assert copies[0] == 0 < copies[2] == 4 and copies == sorted(copies)
    assert {line["nearest"][3:-4] for line in lines[-4:]} == {caption.partition(",")[0] for caption in CAPTIONS}
    assert sheets.shape[0] == plot.shape[0] == 1 and f"{sum(copies)} of 12 images may be copies" in summary
    assert host.views("a")[-1]["headline"] in summary
    for i, strength in ((1, 0.0), (5, 0.5), (11, 1.0)):
        lora = {**DAMAGED["inputs"], "model": ["d", 0], "strength_model": strength, "strength_clip": strength}
        prompts = {"p": text(CAPTIONS[i % 4 // 2], "c"), "n": text("", "c")}
        wires = {"model": ["l", 0], "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["z", 0]}
        vanilla = {"d": DAMAGED, "z": empty(1, 12), "l": node("LoraLoader", **lora), **prompts}
        vanilla["k"] = node("KSampler", **wires, **SAMPLING, seed=5 + i % 2, denoise=1.0)
        vanilla["i"] = node("VAEDecode", samples=["k", 0], vae=["vae", 0])
        for encoded in ("p", "n"):
            vanilla[encoded]["inputs"]["clip"] = ["l", 1]
        assert torch.equal(host.run(vanilla, lab)["i"][0][0], seen[i])


def test_a_stopped_run_goes_on_to_the_same_result(host: Host, lab: dict[str, Any], seen: list, monkeypatch) -> None:
    asked = audit(loras="memory*", strengths="0 1", captions=CAPTIONS[0], steps=4)
    whole = host.run(asked, lab)["a"]
    assert len(seen) == 2 * (1 + 3), "without a LoRA, all LoRAs have the same images"
    for file in kept(host.base):
        file.unlink()
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", None)  # newer hosts' does not look
    sampling, method, steps, reads = (
        host.module(PACK, "adapter.sampling"),
        host.module(PACK, "methods.lora_audit"),
        [],
        [],
    )
    check, load = sampling.check_interrupted, method.load_lora

    def step() -> None:
        steps.append(len(seen))
        if len(steps) == 4 * 3 + 2:
            assert len(kept(host.base)) == 3, "each is kept once it is there: a server that is killed loses one image"
            comfy.model_management.interrupt_current_processing()
        check()

    monkeypatch.setattr(sampling, "check_interrupted", step)
    monkeypatch.setattr(method, "load_lora", lambda file, name: (reads.append(file.name), load(file, name))[1])
    assert fails(host, asked, lab).kind == "interrupted"
    assert len(steps) == 4 * 3 + 2 and len(seen) == 8 + 3 == 8 + len(kept(host.base))
    assert "Stopped after 3 of 12 images" in host.views("a")[-1]["headline"]
    kept(host.base)[0].write_bytes(b"damaged")
    del reads[:]
    again = host.run(asked, lab)["a"]
    assert len(seen) == 8 + 3 + 6 and len(reads) == len(set(reads)) <= 3
    assert again[2:] == whole[2:] and torch.equal(again[0], whole[0]) and torch.equal(again[1], whole[1])
    assert host.views("a")[-1]["notes"][-1] == "2 images of an earlier run were used again."
    host.run({**asked, "a": node("MG_LoRAAudit", **{**asked["a"]["inputs"], "latent_threshold": 0.5})}, lab)
    assert len(seen) == 17, "a threshold changes no image"
    host.run({**asked, "d": node("LoraLoader", **{**DAMAGED["inputs"], "strength_model": -0.5})}, lab)
    assert len(seen) == 17 + 8, "another model does"


def test_an_image_behind_the_model_that_is_overwritten_gives_other_results(host: Host, lab: Any, seen: list) -> None:
    """As under an image adapter: no weight tells the two models apart."""

    @host_node("MGTest_Tinted", {"model": ("MODEL", {}), "image": ("IMAGE", {})}, ("MODEL",))
    def tinted(model: Any, image: torch.Tensor) -> tuple:
        patched, tint = model.clone(), float(image.mean())
        patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + tint)
        return (patched,)

    def paint(colour: str) -> None:
        Image.new("RGB", (8, 8), colour).save(host.base / "input" / "tint.png")

    asked = audit(loras="memory", strengths="1", captions=CAPTIONS[0], seeds=1, steps=1, model=["t", 0])
    asked |= {"i": node("LoadImage", image="tint.png"), "t": node("MGTest_Tinted", model=["d", 0], image=["i", 0])}
    for colour, sampled in (("black", 1), ("black", 1), ("white", 2), ("black", 2), ("white", 2)):
        paint(colour)
        host.run(asked, lab)
        assert len(seen) == sampled, "an image is sampled once for each content"
    assert not torch.equal(*seen)


def test_a_file_that_its_node_says_nothing_about_is_told_by_its_size_and_age(host: Host) -> None:
    def identity(**more: Any) -> str:
        graph = {"f": {**node("Loads", file="notes.bin", size=1, words="notes\0.bin"), **more}}
        graph["a"] = node("MG_LoRAAudit", model=["f", 0])
        return host.module(PACK, "adapter.identity").graph_identity(graph, "a", ["model"])

    file = host.base / "input" / "notes.bin"
    file.write_bytes(b"one")
    first, always, told = identity(), identity(is_changed=[float("nan")]), identity(is_changed=["hash"])
    assert first == identity() and first == always != told
    file.write_bytes(b"three")
    assert first != identity() == identity(is_changed=float("nan")) and told == identity(is_changed=["hash"])


@pytest.mark.parametrize("kind", [range, torch.tensor, np.asarray])
def test_a_batch_index_of_any_kind_is_one_of_the_hosts(host: Host, lab: Any, seen: list, kind: Any) -> None:
    """The host takes them all, and packs give them."""
    sampled = []
    for index in ([2, 3], range(2, 4) if kind is range else kind([2, 3]), [3, 2]):
        latent = {"samples": torch.zeros(2, 4, 8, 8), "batch_index": index}
        few = {"loras": "memory", "strengths": "1", "captions": CAPTIONS[0], "seeds": 1, "steps": 1}
        host.run(audit(**few, latent_image=["given", 0]), {**lab, "given": latent})
        sampled.append(len(seen))
    assert sampled == [1, 1, 2]


def test_names_patterns_captions_and_what_is_refused(host: Host, lab: dict[str, Any]) -> None:
    few = {"strengths": "0", "seeds": 1, "steps": 1, "captions": "a (ring:1.5)"}
    table = host.run(audit(loras="memory*", **few), lab)["a"][2]
    epochs = ["memory-000002.safetensors", "memory-000010.safetensors", "memory.safetensors"]
    assert [line.partition(",")[0] for line in table.splitlines()[1:]] == epochs
    assert short_names(epochs) == ["2", "10", "memory"]
    own = host.run(audit(**{**few, "captions": "", "most_captions": 4}), lab)["a"][2]
    assert [line["caption"] for line in csv.DictReader(io.StringIO(own))] == [p[0] for p in training_pairs()[::4]]
    for changed, said in (
        ({"loras": "memroy"}, "'memroy' is not in models/loras"),
        ({"loras": "none-*"}, "no file in models/loras fits"),
        ({"loras": " "}, "`loras` is empty"),
        ({"loras": "other"}, "fits no layer of `model` or `clip`"),
        ({"loras": "broken"}, "cannot be read"),
        ({"strengths": "0,6"}, "with a point"),
        ({"strengths": "strong"}, "with a point"),
    ):
        assert said in refused(host, audit(**{**few, "strengths": "1", **changed}), lab)
    bare = host.run({"w": graphs.references("", "works")}, {"works": {"samples": torch.randn(3, 4, 12, 12)}})["w"][0]
    assert "`references` holds no captions" in refused(host, audit(captions=""), {**lab, "r": bare})
    assert parse_strengths("1.0; 0.6 -0.5,0.6", "") == [-0.5, 0.6, 1.0]


def test_the_answer(host: Host) -> None:
    """The strongest without a copy, of the last epoch; and Wilson's interval against published values."""
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4) and wilson(0, 0) == (0, 1)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, Table I
    found = LoraAudit(["e5", "e10"], [0.0, 0.5, 1.0], 0.85, ["=1+1"])
    for row, similarity in zip(found.rows, (0.1, 0.2, 0.9, 0.1, 0.2, 0.8), strict=True):
        row.add(SampledImage("c", 1, similarity, 0))
    assert "The strongest without a copy: e10 at strength 1. With 1 image" in "\n".join(found.summary_lines())
    assert found.clean_up_to("e5") is found.rows[1] and ",'=1+1,yes\n" in found.csv()
    found.rows[3].add(SampledImage("c", 2, 0.9, 0))
    assert found.clean_up_to("e10") is None and "- e10: at no strength" in found.summary_lines()
