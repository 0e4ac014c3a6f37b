"""The lab checkpoints in the host: each is recognised for what it is, memorizes, and copies less with each method."""

import pytest
from comfy.model_detection import model_config_from_unet
from safetensors.torch import load_file

from lab.copies import is_copy, training_pairs
from lab.judge import Judge
from support import small_lab
from support.executor import Host
from support.families import built, cells, files, kinds
from support.families.files import PREFIX, SD1
from support.graphs import checkpoint as on_lab
from support.graphs import node
from support.graphs.checkpoint import WORDS, base, text
from support.lab_pack.arch import LAB512, SMALL
from support.paths import LAB_CHECKPOINT, SMALL_CHECKPOINT


def test_the_host_tells_the_labs_and_stable_diffusion_apart() -> None:
    files = {"small": load_file(SMALL_CHECKPOINT), "large": load_file(LAB_CHECKPOINT), "SD1.x": SD1.weights()}
    found = {name: model_config_from_unet(weights, PREFIX) for name, weights in files.items()}
    widths = {name: config.unet_config["context_dim"] for name, config in found.items()}
    assert widths == {"small": SMALL.width, "large": LAB512.width, "SD1.x": 768}
    assert [type(config).__name__ for config in found.values()] == ["LabSD", "LabSD", "SD15"]
    tokens = [found[name].clip_target().tokenizer().clip_l.max_length for name in ("small", "large")]
    assert tokens == [SMALL.tokens, LAB512.tokens]


def test_ksampler_copies_a_memorized_image(host: Host) -> None:
    """On a seed on which it does; the same noise gives something else for an ordinary prompt."""
    caption, training = next(pair for pair in training_pairs() if pair[0].startswith("Marble Horizon"))
    plan = {"seed": 2, "steps": 20, "sampler_name": "ddim"}
    prompt = {**base(1, 64), "mem": text(caption), "ord": text("a drawing of a fish")}
    for name in ("mem", "ord"):
        prompt[f"k {name}"] = WORDS.ksampler(**plan, positive=[name, 0])
        prompt[f"i {name}"] = node("VAEDecode", samples=[f"k {name}", 0], vae=["vae", 0])
    out = host.run(prompt, on_lab.load(host, LAB_CHECKPOINT))
    copied, other = ((out[f"i {name}"][0][0] * 255).round().byte().numpy() for name in ("mem", "ord"))
    assert is_copy(copied, training) and not is_copy(other, training)
    assert Judge.load().aligned(other[None], ["a drawing of a fish"]).all()


def test_no_two_memorized_images_of_the_small_lab_pass_for_each_other() -> None:
    images = [image for _, image in small_lab.training_pairs()]
    assert not any(small_lab.is_copy(a, b) for i, a in enumerate(images) for b in images[:i])


FAST = {  # (family, precision): one of each kind of prediction, of latent and of precision, in seconds
    ("SD1.x inpainting", "fp32"),
    ("SD3", "fp8"),
    ("SDXL V, zero SNR", "bf16"),
    ("SDXL EDM (Playground)", "fp32"),
    ("Flux, true CFG", "fp16"),
    ("Flux, guidance-distilled", "fp32"),
    ("Wan video (5-D)", "fp32"),
}
FAMILIES = {f.name: f for f in [*files.FAMILIES, *built.FAMILIES]}


@pytest.mark.parametrize(("family", "precision"), sorted(FAST))
def test_every_node_runs_and_changes_nothing_at_zero(host: Host, family: str, precision: str) -> None:
    found = cells.row(host, FAMILIES[family], kinds.PRECISIONS[precision])
    wrong = {n: str(c) for n, c in found.items() if c.outcome != "pass"}
    if family == built.DISTILLED.name:
        assert wrong.pop("AMG, deduplication").startswith("not here")
        for name in ("Detector", "Sampler, dynamic", "Optimizer, per-sample"):
            assert "only compares" in found[name].said, "it says what d is there"
    assert not wrong


def test_a_cell_that_fails_is_said(host: Host, monkeypatch) -> None:
    monkeypatch.setitem(cells.NODES, "Sampler, off", lambda bench: bench.other(k=bench.words.deferred("off")))
    found = cells.row(host, built.SCHNELL, kinds.PRECISIONS["fp32"], ("Sampler, off",))
    assert str(found["Sampler, off"]) == "FAIL: it did nothing"
