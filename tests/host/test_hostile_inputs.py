"""Nothing that a prompt can hold ends in a traceback of ours: it runs, or one clear sentence says what is wrong.

The suite draws the same few hundred inputs every time; `make fuzz` draws 2,000 new ones and prints what
came of them (FUZZ=5000 draws more).
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import nodes as host_nodes
from support.copy_detectors import random_clip_vision, random_sscd
from support.executor import Host
from support.graphs import detector, lab
from support.hostile_files import reference_files
from support.hostile_objects import pool
from support.hostile_runs import WHOLE, Tally, inputs, judge, prompt_of
from support.image_files import scene
from support.lab_pack import exact

FUZZ = int(os.environ.get("FUZZ", "0"))
NODES = sorted(WHOLE)
FILES = "files"


def plan(share: float) -> settings:
    """The suite's few, the same at every run, or a share of `make fuzz`."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    phases = (Phase.explicit, Phase.generate, *([Phase.shrink] if FUZZ else []))
    count = max(1, round(share * (FUZZ or SUITE)))
    return settings(
        max_examples=count,
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        suppress_health_check=unhealthy,
        phases=phases,
        print_blob=True,
        report_multiple_bugs=False,
    )


SUITE = 300


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    print("\n" + "\n".join(made.lines()))
    if FUZZ:
        for (_, kind, said), count in sorted(made.said.items(), key=lambda item: item[0]):
            print(f"{count:5d}  {kind}  {said!a}")


@pytest.fixture(scope="module")
def whole(host: Host, checkpoint: dict[str, Any], tmp_path_factory) -> dict[str, Any]:
    """The objects that every prompt may link to, and the files that work."""
    torch.manual_seed(0)
    curve = host.run({"lab": lab(2), "d": detector(steps=4)})["d"][3]
    folder = host.base / "input" / "hostile"
    folder.mkdir(parents=True)
    for i in range(3):
        scene(random.Random(i)).save(folder / f"{i}.png")
    outside = tmp_path_factory.mktemp("outside")
    models = host.base / "models" / "memorization_references"
    models.mkdir(parents=True, exist_ok=True)
    for root in (host.base / "input", models):
        for name, target in {"outside": outside, "loop": root / "loop", "escape.safetensors": outside / "x"}.items():
            if not (root / name).is_symlink():
                (root / name).symlink_to(target)
    references = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    made = references("latent", exact.x_mem().flatten(1).half(), exact.SHAPE, ("a ring",), ("1",))
    host.module("memorization_guard", "references.reference_file").save_references(made, models / "whole.safetensors")
    detectors = host.base / "models" / "copy_detection"
    detectors.mkdir(parents=True, exist_ok=True)
    save_file(random_sscd().state_dict(), detectors / "random.safetensors")
    clip_vision = random_clip_vision(tmp_path_factory.mktemp("clip"))
    vae = checkpoint["vae"]
    return {
        "pool": pool(host, vae, clip_vision, curve),
        "clip": exact.TextEncoder(),
        "vae": vae,
        "curve": curve,
        "works": {"samples": torch.cat([exact.x_mem(), exact.x_mem() + 0.5])},
        "pictures": torch.rand(2, 64, 64, 3),
    }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The host logs a traceback for every refusal."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def all_well(tally: Tally) -> None:
    wrong, tally.wrong = tally.wrong, {}
    assert not wrong, "\n\n".join(wrong.values())


def test_every_node_has_a_case(host: Host) -> None:
    assert set(WHOLE) == {name for name in host_nodes.NODE_CLASS_MAPPINGS if name.startswith("MG_")}


@pytest.mark.parametrize("class_type", NODES)
def test_what_works_works(host: Host, whole: dict[str, Any], class_type: str) -> None:
    """Else nothing behind the first refusal would ever be reached."""
    tally = Tally()
    judge(host, *with_whole(whole, *prompt_of(class_type, {})), tally)
    assert tally.count == {"ran": 1}, tally.said


def with_whole(whole: dict[str, Any], prompt: dict, objects: dict) -> tuple[dict, dict]:
    linked = {v[0] for n in prompt.values() for v in n["inputs"].values() if isinstance(v, list) and v}
    return prompt, objects | {k: whole[k] for k in linked if k in whole}


@pytest.mark.parametrize("class_type", NODES)
def test_hostile_inputs(host: Host, whole: dict[str, Any], tally: Tally, class_type: str) -> None:
    @plan(0.85 / len(NODES))
    @given(inputs(class_type, whole["pool"]))
    def run(changed: dict[str, Any]) -> None:
        judge(host, *with_whole(whole, *prompt_of(class_type, changed)), tally, changed)

    run()
    all_well(tally)


def test_hostile_reference_files(host: Host, whole: dict[str, Any], tally: Tally) -> None:
    """A file that another wrote, then compared with and steered by."""
    folder = host.base / "models" / "memorization_references"

    @plan(0.15)
    @given(reference_files(folder / "whole.safetensors"), st.sampled_from(["load", "check", "steer"]))
    def run(content: bytes, use: str) -> None:
        (folder / "hostile.safetensors").write_bytes(content)
        put = {"references": ["loaded", 0]} if use != "load" else {"file": "hostile.safetensors"}
        kind = {"load": "MG_LoadReferences", "check": "MG_CopyCheck", "steer": "MG_AMGGuidance"}[use]
        prompt, objects = with_whole(whole, *prompt_of(kind, put))
        prompt["loaded"] = {"class_type": "MG_LoadReferences", "inputs": {"file": "hostile.safetensors"}}
        judge(host, prompt, objects, tally, content)

    run()
    all_well(tally)
