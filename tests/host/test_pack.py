"""The pack as the host sees it: the contract of saved workflows, and what a missing part costs."""

from __future__ import annotations

import ast
import importlib
import logging
from pathlib import Path

import comfy.patcher_extension
import pytest
import torch

import nodes as host_nodes
from support.executor import Host, NodeError
from support.graphs import amg, deferred, detector, lab, optimizer, references

ROOT = Path(__file__).resolve().parents[2]
PACK = "memorization_guard"
KSAMPLER = [
    "model",
    "seed",
    "steps",
    "cfg",
    "sampler_name",
    "scheduler",
    "positive",
    "negative",
    "latent_image",
    "denoise",
]
RULE = ["rule", "drop_ratio", "memorized_threshold"]
MODE = ["mode", "pre_escape_cfg", "start_percent"]
CONTRACT = {  # inputs by name, outputs by name: permanent, workflows are saved with them
    "MG_NoiseOptimizer": (
        [
            "model",
            "positive",
            "negative",
            "latent_image",
            "noise_seed",
            "method",
            "target_magnitude",
            "target_units",
            "learning_rate",
            "weight_decay",
            "max_iterations",
            "adjustment_strength",
            "sharpness_radius",
            "adjustments",
            "candidates",
            "null",
            "sigmas",
            "constraint",
            "checkpointing",
        ],
        ["noise", "report", "summary"],
    ),
    "MG_BasinEscapeDetector": (
        [
            *["model", "positive", "negative", "latent_image", "noise_seed", "steps", "scheduler"],
            *RULE,
            *["noise", "sigmas", "null"],
        ],
        ["memorized", "transition_step", "transition_percent", "curve", "plot"],
    ),
    "MG_DeferredCFGGuider": (["model", "positive", "negative", "cfg", *MODE, *RULE, "curve", "null"], ["guider"]),
    "MG_DeferredCFG": (["model", *MODE, *RULE, "curve", "null"], ["model"]),
    "MG_Calibrate": (
        ["model", "clip", "latent_image", "prompts", "noise_seed", "sigmas"],
        ["ordinary_magnitude", "target_magnitude", "memorized_threshold", "summary"],
    ),
    "MG_PlotCurve": (["curve", "curve_2", "curve_3", "curve_4", "quantity"], ["image"]),
    "MG_ReferencesFromFolder": (
        ["folder", "metric", "width", "height", "subfolders", "vae", "descriptor", "size_of"],
        ["references", "count", "report"],
    ),
    "MG_ReferencesFromImages": (
        ["images", "captions", "metric", "vae", "descriptor", "size_of"],
        ["references", "report"],
    ),
    "MG_ReferencesFromLatents": (["latents", "captions", "vae"], ["references", "report"]),
    "MG_SaveReferences": (["references", "name", "overwrite"], ["references"]),
    "MG_LoadReferences": (["file", "descriptor"], ["references", "count", "report"]),
    "MG_LoadCopyDetector": (["file"], ["descriptor"]),
    "MG_CopyCheck": (
        ["images", "references", "threshold", "latent_threshold", "nl2_threshold", "vae"],
        ["similarity", "nearest", "is_copy", "summary", "comparison"],
    ),
    "MG_DeferredCFGKSampler": (
        [*KSAMPLER, *MODE, *RULE, "noise", "curve", "null"],
        ["latent", "curve", "transition_step"],
    ),
    "MG_AMGGuidance": (
        [
            *["model", "references", "despecification", "deduplication", "dissimilarity"],
            *["threshold_min", "threshold_max", "threshold_schedule", "gradient", "vae", "clip"],
            *["dissimilarity_growth", "every", "memorized_threshold"],
        ],
        ["model"],
    ),
}
DEFAULTS = {
    "MG_NoiseOptimizer": {
        "method": "per-sample",
        "target_magnitude": 0.007,
        "target_units": "relative",
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "max_iterations": 200,
        "adjustment_strength": 0.7,
        "sharpness_radius": 50.0,
        "adjustments": 2,
        "candidates": 16,
    },
    "MG_BasinEscapeDetector": {"steps": 50, "rule": "sharp drop", "drop_ratio": 0.5},
    "MG_DeferredCFGKSampler": {"mode": "dynamic", "pre_escape_cfg": 0.0, "drop_ratio": 0.5},
    "MG_DeferredCFGGuider": {"mode": "dynamic", "pre_escape_cfg": 0.0, "drop_ratio": 0.5, "cfg": 8.0},
    "MG_DeferredCFG": {"mode": "dynamic", "pre_escape_cfg": 0.0, "drop_ratio": 0.5},
    "MG_Calibrate": {},
    "MG_ReferencesFromFolder": {"metric": "latent", "width": 512, "height": 512, "subfolders": True},
    "MG_ReferencesFromImages": {"metric": "latent", "captions": ""},
    "MG_ReferencesFromLatents": {"captions": ""},
    "MG_SaveReferences": {"overwrite": False},
    "MG_LoadReferences": {},
    "MG_LoadCopyDetector": {},
    "MG_CopyCheck": {"threshold": 0.5, "nl2_threshold": 1.4},
    "MG_PlotCurve": {"quantity": "pull"},
    "MG_AMGGuidance": {
        "despecification": 13.0,
        "deduplication": 0.0,
        "dissimilarity": 10.0,
        "threshold_min": 0.5,
        "threshold_max": 0.6,
        "threshold_schedule": "parabolic",
        "gradient": "through prediction",
        "dissimilarity_growth": "ramp",
        "every": 1,
        "memorized_threshold": 0.0,
    },
}


def schema(node: str):
    return host_nodes.NODE_CLASS_MAPPINGS[node].GET_SCHEMA()


@pytest.mark.parametrize("node", CONTRACT)
def test_ids_inputs_and_outputs_are_the_catalogues(host: Host, node: str) -> None:
    made = schema(node)
    assert [i.id for i in made.inputs] == CONTRACT[node][0]
    assert [o.display_name for o in made.outputs] == CONTRACT[node][1]
    assert made.category == "memorization"
    defaults = {i.id: getattr(i, "default", None) for i in made.inputs}
    assert {k: defaults[k] for k in DEFAULTS[node]} == DEFAULTS[node]


@pytest.mark.parametrize("node", CONTRACT)
def test_every_input_and_output_explains_itself_and_every_node_has_help(host: Host, node: str) -> None:
    made = schema(node)
    assert made.description
    silent = [x.id or x.display_name for x in (*made.inputs, *made.outputs) if not x.tooltip]
    assert silent == []
    assert (ROOT / "web" / "docs" / f"{node}.md").stat().st_size > 500


def test_ksamplers_inputs_have_ksamplers_defaults(host: Host) -> None:
    theirs = host_nodes.KSampler.INPUT_TYPES()["required"]
    ours = {i.id: i for i in schema("MG_DeferredCFGKSampler").inputs}
    for name in ("seed", "steps", "cfg", "denoise"):
        assert (ours[name].default, ours[name].min, ours[name].max) == tuple(
            theirs[name][1][k] for k in ("default", "min", "max")
        )
    for name in ("sampler_name", "scheduler"):
        assert list(ours[name].options) == list(theirs[name][0])


def test_a_host_symbol_that_moved_costs_one_node_and_says_so(host: Host, monkeypatch, caplog) -> None:
    pack = host.module(PACK)
    real = importlib.import_module

    def moved(name: str, package: str | None = None):
        if name.endswith("basin_escape_detector"):
            raise ImportError("cannot import name 'KSAMPLER' from 'comfy.samplers'")
        return real(name, package)

    monkeypatch.setattr(pack.importlib, "import_module", moved)
    with caplog.at_level(logging.ERROR):
        left = {n.GET_SCHEMA().node_id for n in pack.collect_nodes()}
    assert left == set(CONTRACT) - {"MG_BasinEscapeDetector"}
    assert "KSAMPLER" in caplog.text and "basin_escape_detector" in caplog.text and "Update ComfyUI" in caplog.text
    assert "Traceback" in caplog.text, "the fault may also be ours"


class OlderWrappers:
    """The host's, before PREDICT_NOISE came with ComfyUI 0.3.52."""

    OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


def test_a_host_without_a_wrapper_point_is_told_in_a_sentence(host: Host, monkeypatch) -> None:
    monkeypatch.setattr(host.module(PACK, "adapter.model_patch"), "WRAPPERS", OlderWrappers)
    refs = {"works": {"samples": torch.ones(1, 4, 8, 8)}}
    for node in (deferred(steps=2), amg(), detector(steps=2)):
        with pytest.raises(NodeError, match=r"too old for it\. Update ComfyUI to") as caught:
            host.run({"lab": lab(1), "refs": references(), "n": node}, refs)
        assert caught.value.kind.endswith("GuardError")
    host.run({"lab": lab(1), "n": optimizer("batch-wise"), "k": deferred("off", noise=["n", 0], steps=2)})


def test_a_host_before_this_kind_of_pack_is_told_in_the_log(host: Host, monkeypatch, caplog) -> None:
    pack = host.module(PACK)
    pack.warn_of_an_old_host()
    assert caplog.text == ""
    real = pack.importlib.util.find_spec
    monkeypatch.setattr(
        pack.importlib.util, "find_spec", lambda name: None if name == "comfy_api.latest" else real(name)
    )
    pack.warn_of_an_old_host()
    assert f"Update ComfyUI to {host.module(PACK, 'adapter.version').OLDEST_COMFYUI} or newer" in caplog.text


def test_the_registry_is_told_the_same_oldest_host(host: Host) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-comfyui = ">={host.module(PACK, "adapter.version").OLDEST_COMFYUI}"' in text


def test_mathematics_knows_no_host_and_nodes_touch_it_in_one_room() -> None:
    def imports(file: Path) -> set[str]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 0]
        return {n.split(".")[0] for n in names}

    host_modules = {"comfy", "execution", "nodes", "server", "latent_preview", "folder_paths"}
    for file in (ROOT / "mitigation").glob("*.py"):
        assert not imports(file) & (host_modules | {"comfy_api"}), file
    for file in (ROOT / "nodes").glob("*.py"):
        assert not imports(file) & host_modules, file


def test_no_file_is_too_long_to_hold_in_the_head() -> None:
    for folder, limit in (("nodes", 200), ("nodes/host", 300), ("mitigation", 300), ("tools", 300), ("tests", 300)):
        for file in (ROOT / folder).glob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= limit, file
