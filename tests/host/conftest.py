"""Fixtures of the host tests; support/bootstrap.py brings up the host and the pack."""

from support import bootstrap

# isort: split
import gc
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher

from support import lab_files
from support.copy_detectors import random_clip_vision
from support.executor import Host
from support.graphs.checkpoint import load
from support.hostile_runs import Tally
from support.lab_pack import exact
from support.lab_pack.meter import Meter
from support.lent_weights import loaded, recast
from support.paths import LAB_NAME, LAB_PACK, PACK, ROOT


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    made = Host(bootstrap.BASE, {LAB_NAME: LAB_PACK, PACK: ROOT})
    gc.freeze()  # the host collects garbage with every prompt, and half of the time would go into what was imported
    yield made
    made.close()


@pytest.fixture
def counted() -> tuple[ModelPatcher, Meter]:
    meter, model = Meter(), exact.build()
    model.set_model_unet_function_wrapper(meter)
    return model, meter


@pytest.fixture(scope="session")
def checkpoint(host: Host) -> dict[str, Any]:
    """The small lab, loaded by the host, as `given` objects; the LoRA and the ControlNet are in place."""
    lab_files.save_lora(host)
    lab_files.save_control(host)
    return load(host)


@pytest.fixture(scope="session")
def vae(checkpoint: dict[str, Any]) -> Any:
    return checkpoint["vae"]


@pytest.fixture(scope="session")
def clip_vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return random_clip_vision(tmp_path_factory.mktemp("clip vision"))


@pytest.fixture(scope="session")
def twins(checkpoint: dict[str, Any], clip_vision: Any) -> dict[str, Any]:
    """The networks in float64, for differences; those of the lab hold fp16, and so does CLIP vision here."""
    networks = loaded(torch.float64)
    networks["vae"].vae_dtype, networks["vae"].process_output = torch.float64, torch.sigmoid
    with torch.inference_mode():
        networks["vae"].first_stage_model.double()
    vision = recast(recast(clip_vision, torch.float16), torch.float64)
    return {"exact_model": networks["m"], "exact": networks["vae"], "exact_descriptor": vision}


@pytest.fixture(scope="session")
def images() -> dict[str, Any]:
    return {"i": torch.rand(51, 64, 64, 3, generator=torch.Generator().manual_seed(0))}  # nL2 needs as many


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    made = Tally()
    yield made
    print("\n" + made.line())


@pytest.fixture
def quiet() -> Iterator[None]:
    """The host logs a traceback for every refusal."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def searches(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each search of Memorization Guard (Simple) finds: the noise, and its report."""
    quiet, seen = host.module(PACK, "methods.quiet_noise"), []
    searched = quiet.search_noise
    monkeypatch.setattr(quiet, "search_noise", lambda *a, **k: seen.append(searched(*a, **k)) or seen[-1])
    return seen
