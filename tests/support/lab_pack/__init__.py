"""The lab as a pack of the host, for tests only: never part of what users install.

Makes the host's checkpoint loader recognise the lab checkpoint, and adds nodes that give the exact
model (exact.py) and models with a fault in them.
"""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyExtension, io

from . import arch, exact, meter, trouble

arch.register()

CATEGORY = "memorization/lab"
FAULTS = ["nan", "exception", "quantized"]


class ExactModel(io.ComfyNode):
    """The exact model, its three prompts and an empty latent of its size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_ExactModel",
            display_name="Exact Model (lab)",
            category=CATEGORY,
            inputs=[
                io.Combo.Input("parameterisation", options=list(exact.PARAMETERISATIONS)),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[
                io.Model.Output(),
                io.Conditioning.Output(display_name="memorized"),
                io.Conditioning.Output(display_name="ordinary"),
                io.Conditioning.Output(display_name="null"),
                io.Latent.Output(),
            ],
        )

    @classmethod
    def execute(cls, parameterisation: str, batch_size: int) -> io.NodeOutput:
        prompts = [exact.conditioning(prompt) for prompt in ("memorized", "ordinary", "null")]
        empty = torch.zeros(batch_size, *exact.SHAPE)
        return io.NodeOutput(exact.build(parameterisation), *prompts, {"samples": empty})


class Faulty(io.ComfyNode):
    """A model that fails at one of its calls, or one that cannot be differentiated."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_Faulty",
            display_name="Faulty Model (lab)",
            category=CATEGORY,
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("fault", options=FAULTS),
                io.Int.Input("at_call", default=1, min=1, max=100000),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, fault: str, at_call: int) -> io.NodeOutput:
        if fault == "quantized":
            return io.NodeOutput(exact.quantized(model))
        return io.NodeOutput(failing(model, fault, at_call))


def plainly(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
    return apply_model(args["input"], args["timestep"], **args["c"])


def failing(model: ModelPatcher, fault: str, at_call: int) -> ModelPatcher:
    """A clone whose `at_call`-th call of a sampling run (from 1) returns NaN or raises."""
    made = model.clone()
    inner = made.model_options.get("model_function_wrapper", plainly)
    calls = 0

    def fresh(executor: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls = 0
        return executor(*args, **kwargs)

    def call(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if fault == "exception" and calls == at_call:
            raise RuntimeError("injected fault")
        out = inner(apply_model, args)
        return torch.full_like(out, torch.nan) if calls == at_call else out

    made.set_model_unet_function_wrapper(call)
    made.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "mglab_faulty", fresh)
    return made


NODES: list[type[io.ComfyNode]] = [ExactModel, Faulty, *meter.NODES, *trouble.NODES]


class LabExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> LabExtension:
    return LabExtension()
