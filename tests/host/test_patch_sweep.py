"""Every node of the host that patches a model, under every way in which this pack samples: runs or refuses by name.

Without MG_PATCH_SWEEP=all, which takes minutes, one of each mechanism is swept.
"""

import asyncio
import os
from typing import Any

import pytest

import nodes
from support import host_patches, patch_sweep
from support.executor import Host

PART = [  # and what they do
    "FreSca",  # changes the predictions
    "LazyCache",  # skips evaluations
    "ModelSamplingFlux",  # replaces an object of the model
    "PerpNeg",  # a CFG function that evaluates the model
    "ScaleROPE",  # of a video model
    "SkipLayerGuidanceDiTSimple",  # answers in the model's place
    "TomePatchModel",  # attention with random numbers
    "USOStyleReference",  # brings a network
    "VideoLinearCFGGuidance",  # takes a batch for a video
    "WanContextWindowsManual",  # splits a video, and is refused a batch by KSampler
    "wanBlockSwap",  # changes nothing
]
NOT_TRIED = {
    "TorchCompileModel": "needs a compiler or a GPU; `make matrix` has a compiled model",
    "TrainLoraNode": "trains, and ComfyUI 0.3.75 fails in it (`multi_res`) with one batch of latents",
    "LTXVReferenceAudio": "needs audio",
    "WanInfiniteTalkToVideo": "needs audio",
}
# KSampler itself fails with two.
ONE_IMAGE = {"ContextWindowsManual", "WanContextWindowsManual", "RenormCFG", "USOStyleReference"}
ONE_IMAGE |= {"TemporalScoreRescaling"}
FOR_VIDEOS = {"VideoLinearCFGGuidance", "VideoTriangleCFGGuidance"}
CACHES = {"EasyCache", "LazyCache"}
# KSampler's own batch is not what its samples are alone: a mean, random numbers, one decision for all, frames.
NOT_AS_ALONE = {"Mahiro", "TomePatchModel", "VideoLinearCFGGuidance", *CACHES}
IDLE = {"ChromaRadianceOptions", "ModelComputeDtype", "wanBlockSwap"}  # on the networks that they are tried on
REFUSED = {(name, way): "its own guidance scale" for name in FOR_VIDEOS for way in ("sampler", "guider", "patch")}
REFUSED["USOStyleReference", "optimizer"] = "as KSampler"  # its patch has one row: no room for a negative prompt
FREE_NOISE = {("WanContextWindowsManual", "optimizer"): "FreeNoise"}  # of newer hosts, where it is the default


def names() -> list[str]:
    if os.environ.get("MG_PATCH_SWEEP") != "all":
        return PART
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return [name for name in host_patches.patches() if name not in NOT_TRIED]


def test_every_patch_of_this_host_has_its_inputs(host: Host) -> None:
    """A newer host may bring one that the sweep has nothing for: give it its inputs in host_patches, or list it."""
    for name in set(host_patches.patches()) - set(NOT_TRIED):
        host_patches.graph(name)


@pytest.mark.parametrize("name", names())
def test_a_patch_runs_or_is_refused_by_name(host: Host, checkpoint: dict[str, Any], name: str) -> None:
    if name not in host_patches.patches():
        pytest.skip("this ComfyUI does not have it")
    bench = patch_sweep.prepared(host_patches.subject(host, checkpoint, name), host_patches.graph(name))
    assert bench.idle == (name in IDLE)
    assert (len(bench.rows) == 1) == (name in ONE_IMAGE)
    assert bench.each_alone == (name not in ONE_IMAGE | NOT_AS_ALONE)
    newer = "freenoise" in host_patches.graph(name)["p"]["inputs"]
    for way in patch_sweep.WAYS:
        said = patch_sweep.outcome(bench, way)
        expected = (REFUSED | FREE_NOISE if newer else REFUSED).get((name, way), "")
        assert (expected in said) if expected else not said, f"{way}: {said}"
