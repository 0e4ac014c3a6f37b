"""Areas, masks, ControlNet, LoRA, inpainting, other packs' guidance: what the host offers keeps working.

On the lab checkpoint, through the real executor; every test compares with what vanilla nodes make of the same.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from host.executor import Host
from host.lab_files import EXTRAS
from host.lab_prompts import (
    CONDITIONS,
    LATENTS,
    NO_BASIN,
    PATCHES,
    STEPS,
    Feature,
    advanced,
    deferred,
    ksampler,
    node,
    patched,
    stage,
)
from host.prompts import RULE

ALL = {"nothing": Feature(), **CONDITIONS, **LATENTS, **PATCHES, **EXTRAS}
SWITCH = 2  # the step from which STEPS are guided when guidance starts at START
START = 0.3


def samples(output: list) -> torch.Tensor:
    return output[0]["samples"]


def guider(links: dict[str, Any], **changed: Any) -> dict[str, Any]:
    plan = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, **RULE, **changed}
    prompts = {k: links[k] for k in ("model", "positive", "negative")}
    return node("MG_DeferredCFGGuider", cfg=7.0, **prompts, **plan)


@pytest.mark.parametrize("name", ALL)
def test_without_a_basin_every_node_is_bit_identical_to_vanilla(host: Host, checkpoint, name: str) -> None:
    feature = ALL[name]
    links = feature.inputs()
    prompt = feature.prompt(
        vanilla=ksampler(**links),
        ours=deferred(**links, **NO_BASIN),
        static=deferred("static", **links, start_percent=0.0),
        patch=patched(links["model"], **NO_BASIN),
        patched=ksampler(**{**links, "model": ["patch", 0]}),
        guider=guider(links, **NO_BASIN),
        **advanced(["guider", 0], links),
    )
    out = host.run(prompt, feature.given(checkpoint))
    expected = samples(out["vanilla"])
    assert torch.isfinite(expected).all()
    for ours in ("ours", "static", "patched", "custom"):
        assert torch.equal(samples(out[ours]), expected), ours
