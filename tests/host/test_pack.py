"""The pack as the host sees it: the contract of saved workflows, and what a missing part costs."""

import importlib
import logging

import comfy.patcher_extension
import pytest
import torch

import nodes as host_nodes
from support.executor import Host
from support.graphs import amg, deferred, detector, lab, optimizer, references
from support.graphs.words import schemas
from support.outcomes import refused
from support.paths import PACK, ROOMS, ROOT


def schema(node: str):
    return host_nodes.NODE_CLASS_MAPPINGS[node].GET_SCHEMA()


@pytest.mark.parametrize("node", schemas())
def test_every_input_and_output_explains_itself_and_every_node_has_help(host: Host, node: str) -> None:
    made = schema(node)
    assert made.description
    assert len(made.search_aliases) >= 2, "words that find it, in hosts that know such words"
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
    assert left == set(schemas()) - {"MG_BasinEscapeDetector"}
    assert "KSAMPLER" in caplog.text and "basin_escape_detector" in caplog.text and "Update ComfyUI" in caplog.text
    assert "Traceback" in caplog.text, "the fault may also be ours"


class OlderWrappers:
    """The host's, before PREDICT_NOISE came with ComfyUI 0.3.52."""

    OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


def test_a_host_without_a_wrapper_point_is_told_in_a_sentence(host: Host, monkeypatch) -> None:
    monkeypatch.setattr(host.module(PACK, "adapter.model_patch"), "WRAPPERS", OlderWrappers)
    refs = {"works": {"samples": torch.ones(1, 4, 8, 8)}}
    for node in (deferred(steps=2), amg(), detector(steps=2)):
        said = refused(host, {"lab": lab(1), "refs": references(), "n": node}, refs)
        assert "too old for it. Update ComfyUI to" in said
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


def test_no_file_is_too_long_to_understand_at_once() -> None:
    for folder in (*ROOMS, "benchmarks", "lab", "tests", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 300, file
