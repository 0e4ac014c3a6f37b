"""Areas, masks, ControlNet, LoRA, inpainting, other packs' guidance: what the host offers keeps working.

On the lab checkpoint, through the real executor; every test compares with what vanilla nodes make of the same.
"""

from __future__ import annotations

import pytest
import torch

from support.executor import Host
from support.graphs.checkpoint import NO_BASIN, START, STEPS, SWITCH, custom, deferred, guider, ksampler, patch, stage
from support.graphs.features import CONDITIONS, LATENTS, PATCHES, Feature
from support.lab_files import EXTRAS
from support.outcomes import same_bits, samples

ALL = {"nothing": Feature(), **CONDITIONS, **LATENTS, **PATCHES, **EXTRAS}


@pytest.mark.parametrize("name", ALL)
def test_without_a_basin_every_node_is_bit_identical_to_vanilla(host: Host, checkpoint, name: str) -> None:
    feature = ALL[name]
    links = {**feature.inputs(), "steps": 2}
    prompt = feature.prompt(
        vanilla=ksampler(**links),
        ours=deferred(**links, **NO_BASIN),
        static=deferred("static", **links, start_percent=0.0),
        patch=patch(model=links["model"], **NO_BASIN),
        patched=ksampler(**{**links, "model": ["patch", 0]}),
        guider=guider(**{k: links[k] for k in ("model", "positive", "negative")}, **NO_BASIN),
        **custom(["guider", 0], **links),
    )
    out = host.run(prompt, feature.given(checkpoint))
    assert torch.isfinite(samples(out["vanilla"])).all()
    for ours in ("ours", "static", "patched", "custom"):
        assert same_bits(out[ours], out["vanilla"]), ours


PROMPTS_AND_MODELS = {"nothing": Feature(), **CONDITIONS, **EXTRAS, "batch index": LATENTS["batch index"]}


@pytest.mark.parametrize("name", PROMPTS_AND_MODELS)
def test_deferral_is_two_vanilla_stages(host: Host, checkpoint, name: str) -> None:
    """KSampler (Advanced) at CFG 0 until the switch and at CFG 7 after it."""
    feature = PROMPTS_AND_MODELS[name]
    links = feature.inputs()
    prompt = feature.prompt(
        free=stage(0, SWITCH, **links, cfg=0.0),
        vanilla=stage(SWITCH, STEPS, **{**links, "latent_image": ["free", 0]}),
        ours=deferred("static", **links, start_percent=START),
    )
    out = host.run(prompt, feature.given(checkpoint))
    assert out["ours"][2] == SWITCH
    torch.testing.assert_close(samples(out["ours"]), samples(out["vanilla"]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PATCHES)
def test_other_packs_guidance_acts_in_both_phases(host: Host, checkpoint, name: str) -> None:
    """Before the switch as on no prompt at all, after it as on the prompt; at scale 1 as at CFG 1."""
    feature = PATCHES[name]
    links = feature.inputs()
    late = {**links, "latent_image": ["free", 0]}
    prompt = feature.prompt(
        free=stage(0, SWITCH, **{**links, "positive": ["null", 0]}),
        vanilla=stage(SWITCH, STEPS, **late),
        plain=stage(SWITCH, STEPS, **{**late, "model": ["m", 0]}),
        ours=deferred("static", **links, start_percent=START),
        alone=ksampler(**links, cfg=1.0),
        at_1=deferred("static", **links, start_percent=1.0, pre_escape_cfg=1.0),
    )
    out = host.run(prompt, feature.given(checkpoint))
    torch.testing.assert_close(samples(out["ours"]), samples(out["vanilla"]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(samples(out["plain"]), samples(out["vanilla"]), atol=1e-2), "the patch does something"
    torch.testing.assert_close(samples(out["at_1"]), samples(out["alone"]), atol=1e-4, rtol=1e-4)
