"""Fixtures of the host tests."""

from __future__ import annotations

from typing import Any

import pytest

from support import lab_files
from support import lab_graphs as lab_prompts
from support.executor import Host
from support.lab_pack import exact


class Calls:
    """Counts model evaluations in rows: a call on a batch of 2n rows is n paired evaluations."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, apply_model, args):
        self.rows += len(args["input"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    def __deepcopy__(self, memo: dict) -> Calls:
        return self  # a clone of the model copies its options deeply

    def pop_rows(self) -> int:
        rows, self.rows = self.rows, 0
        return rows


@pytest.fixture
def counted():
    """(an exact model, its evaluation counter)."""
    calls = Calls()
    model = exact.build()
    model.set_model_unet_function_wrapper(calls)
    return model, calls


@pytest.fixture(scope="session")
def checkpoint(host: Host) -> dict[str, Any]:
    """The lab checkpoint, loaded by the host, as `given` objects; the LoRA and the ControlNet are in place."""
    lab_files.save_lora(host)
    lab_files.save_control(host)
    return lab_prompts.load(host)
