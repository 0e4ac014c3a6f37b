"""The pack as the host sees it: its nodes, what a missing part costs, and what is written from the nodes."""

import importlib
import logging
import re
from typing import Any

import comfy.patcher_extension
import pytest
import torch
from app.custom_node_manager import CustomNodeManager

import nodes as host_nodes
from support.executor import Host
from support.graphs import amg, deferred, detector, lab, optimizer, references
from support.graphs.words import schemas
from support.outcomes import refused
from support.paths import PACK, ROOMS, ROOT
from tools.assets.locales import ENGLISH, FILES, TRANSLATED, english, normal, read
from tools.assets.node_facts import FILE, page_facts


def schema(node: str):
    return host_nodes.NODE_CLASS_MAPPINGS[node].GET_SCHEMA()


@pytest.mark.parametrize("node", schemas())
def test_every_input_and_output_explains_itself(host: Host, node: str) -> None:
    made = schema(node)
    assert made.description
    assert len(made.search_aliases) >= 2, "words that find it, in hosts that know such words"
    silent = [x.id or x.display_name for x in (*made.inputs, *made.outputs) if not x.tooltip]
    assert silent == []


def test_ksamplers_inputs_have_ksamplers_defaults(host: Host) -> None:
    theirs = host_nodes.KSampler.INPUT_TYPES()["required"]
    ours = {i.id: i for i in schema("MG_DeferredCFGKSampler").inputs}
    for name in ("seed", "steps", "cfg", "denoise"):
        limits = theirs[name][1]
        own = {k: getattr(ours[name], k) for k in ("default", "min", "max")}
        assert own == {k: limits[k] for k in own}
    for name in ("sampler_name", "scheduler"):
        assert list(ours[name].options) == list(theirs[name][0])


def test_no_file_is_too_long_to_understand_at_once() -> None:
    for folder in (*ROOMS, "benchmarks", "lab", "tests", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 300, file


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
    monkeypatch.setattr(pack.importlib.util, "find_spec", lambda n: None if n == "comfy_api.latest" else real(n))
    pack.warn_of_an_old_host()
    oldest = host.module(PACK, "adapter.version").OLDEST_COMFYUI
    assert f"Update ComfyUI to {oldest} or newer" in caplog.text
    assert f'requires-comfyui = ">={oldest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8"), "the registry's"


@pytest.fixture
def nodes(host: Host) -> list[Any]:
    return host.module(PACK).collect_nodes()


def test_the_page_is_told_of_views_of_inputs_that_nodes_have_and_of_every_choice(host: Host, nodes: list[Any]) -> None:
    tables = host.module(PACK, "nodes.schema")
    assert FILE.read_text(encoding="utf-8") == page_facts(nodes, tables.USED_WITH, tables.REPLACED_BY)
    shown, names = page_facts(nodes, {}, {}), {node.GET_SCHEMA().node_id for node in nodes}
    assert {name for name in names if f'"{name}"' not in shown} == {
        "MG_PlotCurve",
        "MG_LoadCopyDetector",
        "MG_AttentionAttenuation",
    }
    inputs = [{i.id: getattr(i, "options", None) or () for i in node.GET_SCHEMA().inputs} for node in nodes]
    replaced = {name: {"": others} for name, others in tables.REPLACED_BY.items()}
    for name, values in {**tables.USED_WITH, **replaced}.items():
        having = [known for known in inputs if name in known]
        behind = [known for known in inputs if name == "metric" and "references" in known]  # Copy Check's thresholds
        assert {other for others in values.values() for other in others} <= set().union(*having, *behind), name
        assert name in replaced or {value for known in having for value in known[name]} == set(values), name


def test_english_is_what_the_nodes_say(nodes: list[Any]) -> None:
    """If not: `make locales`, and translate what the unit test then misses."""
    said = english([node.GET_SCHEMA() for node in nodes])
    assert said == read(ENGLISH, "nodeDefs")
    assert list(said) == list(read(ENGLISH, "nodeDefs"))
    used = {part for node in nodes for part in node.GET_SCHEMA().category.split("/")}
    assert set(read(ENGLISH, "main")["nodeCategories"]) == used
    assert set(said) == {normal(name) for name in host_nodes.NODE_CLASS_MAPPINGS if name.startswith("MG_")}


@pytest.mark.parametrize("language", TRANSLATED)
def test_options_keep_their_names(nodes: list[Any], language: str) -> None:
    """A value of a COMBO is shown as it is in every language, so a tooltip must name it as it is."""
    translated, found = read(language, "nodeDefs"), 0
    for schema in [node.GET_SCHEMA() for node in nodes]:
        options = {str(o) for i in schema.inputs for o in getattr(i, "options", None) or []}
        for made in schema.inputs:
            text = translated[normal(schema.node_id)]["inputs"].get(normal(made.id), {}).get("tooltip")
            if text is None:  # the unit test names it
                continue
            named = {o for o in options if re.search(rf"(?i)(?<![\w-]){re.escape(o)}(:| only:| \()", made.tooltip)}
            named |= set(re.findall(r"\b(latent|nL2|descriptor) metric\b", made.tooltip))
            found += len(named)
            assert [o for o in named if o not in text] == [], f"{schema.node_id}.{made.id}"
    assert found > 30


def test_the_host_serves_them(host: Host) -> None:
    served = CustomNodeManager().build_translations()
    assert set(served) == {ENGLISH, *TRANSLATED}
    for language, messages in served.items():
        main, node_defs, settings = (read(language, name) for name in FILES)
        assert messages == {**main, "nodeDefs": node_defs, "settings": settings}
