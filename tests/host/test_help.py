"""The help pages against the nodes: every input is explained, and nothing that does not exist."""

import re
from pathlib import Path

import pytest
from PIL import Image

import nodes as host_nodes
from support.executor import Host
from support.paths import ROOT

HELP = ROOT / "web" / "docs"
PAGES = sorted(HELP.glob("*.md"))
WITHOUT_IMAGES = {
    "MG_AttentionAttenuation",
    "MG_Calibrate",
    "MG_LoadCopyDetector",
    "MG_LoadReferences",
    "MG_SaveReferences",
}
WITHOUT_IMAGES |= {"MG_ReferencesFromFolder", "MG_ReferencesFromImages", "MG_ReferencesFromLatents"}
HOSTS = {"sampler_name", "scheduler", "folder", "file"}  # their options are the host's or the artist's
# Files and folders, as pages name them.
FILES = {"10_mystyle", "memorization_guard", "copy_detection", "extra_model_paths", "memorization_references"}
FILES |= {"my_lora", "sscd_disc_large", "sscd_disc_mixup", "taesd_decoder", "taesd_encoder", "vae_approx"}


def schema(node: str):
    return host_nodes.NODE_CLASS_MAPPINGS[node].GET_SCHEMA()


def section(page: Path, name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.M | re.S)
    return found[1] if found else ""


def entries(text: str) -> list[str]:
    """The names at the heads of a list: "- **`model`, `clip` (optional)**: ..."."""
    heads = re.findall(r"^- \*\*(.+?)\*\*", text, re.M)
    return [name for head in heads for name in re.findall(r"`(\w+)`", head)]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_explains_every_input_output_and_choice_once_and_no_other(host: Host, page: Path) -> None:
    assert [page.stem for page in PAGES] == sorted(n for n in host_nodes.NODE_CLASS_MAPPINGS if n.startswith("MG_"))
    text, node = page.read_text(encoding="utf-8"), schema(page.stem)
    assert text.startswith(f"# {node.display_name}\n")
    assert sorted(entries(section(page, "Inputs"))) == sorted(made.id for made in node.inputs)
    assert entries(section(page, "Outputs")) == [made.display_name for made in node.outputs]
    for made in node.inputs:
        if made.id not in HOSTS:
            for option in getattr(made, "options", None) or []:
                assert re.search(rf"(?<![\w-]){re.escape(str(option))}(?![\w-])", text), option
    ours = [schema(p.stem) for p in PAGES]
    known = {x.id for s in ours for x in s.inputs} | {x.display_name for s in ours for x in s.outputs}
    for other in host_nodes.NODE_CLASS_MAPPINGS.values():
        known |= {name for inputs in other.INPUT_TYPES().values() for name in inputs}
    named = {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"\b[a-z0-9]+_\w+\b", code)}
    assert named - known - FILES == set()


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_says_what_it_costs_promises_nothing_and_shows_real_images(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert section(page, "What it costs").strip()
    assert not re.search(r"(?i)\b(is safe|are safe|guaranteed|never copies|prevents)\b", text)
    kept = {"MG_LoadReferences", "MG_SaveReferences"}  # of this pack, no paper's
    assert page.stem in kept or "arxiv.org/abs/" in section(page, "Source")
    measures = page.stem not in {*kept, "MG_PlotCurve"}
    assert not measures or re.search(r"guarantees nothing|No guarantee", text)
    found = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    assert bool(found) == (page.stem not in WITHOUT_IMAGES)
    for words, address in found:
        assert len(words) > 20  # what one who does not see it is told
        assert (HELP / address).stat().st_size < 80_000
        with Image.open(HELP / address) as image:
            assert image.format == "JPEG" and image.width <= 900
