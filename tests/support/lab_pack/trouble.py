"""Trouble for a running server, once per run, and a count of what is alive in its process."""

from __future__ import annotations

import gc
import json
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .meter import Meter, MeterSocket

KINDS = ("none", "RuntimeError", "out of memory", "NaN")
WORDS = "injected fault"


class Strike(Meter):
    """Fails at one call, counted over everything that samples with this model, and never again."""

    def __init__(self, inner: Any, kind: str, at_call: int) -> None:
        super().__init__(inner)
        self.kind, self.at_call = kind, at_call
        self.calls = 0

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        self.calls += 1
        now = self.calls == self.at_call
        if now and self.kind == "RuntimeError":
            raise RuntimeError(WORDS)
        if now and self.kind == "out of memory":
            raise torch.OutOfMemoryError(WORDS)
        out = super().__call__(apply_model, args)
        return out * torch.nan if now and self.kind == "NaN" else out  # a full_like would have no gradient


class StruckModel(io.ComfyNode):
    """A clone of the model that fails once. The host's cache keeps it: the same prompt again goes through."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_StruckModel",
            display_name="Struck Model (lab)",
            category="memorization/lab",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("kind", options=list(KINDS)),
                io.Int.Input("at_call", default=1, min=1, max=100000),
                io.Int.Input("run", default=0, min=0, max=2**31, tooltip="Tells runs apart for the cache."),
            ],
            outputs=[io.Model.Output(), MeterSocket.Output(display_name="meter")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, kind: str, at_call: int, run: int) -> io.NodeOutput:
        struck = model.clone()
        strike = Strike(struck.model_options.get("model_function_wrapper"), kind, at_call)
        struck.set_model_unet_function_wrapper(strike)
        return io.NodeOutput(struck, strike)


class Alive(io.ComfyNode):
    """Counts the tensors and models that are alive after a garbage collection."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_Alive",
            display_name="Alive (lab)",
            category="memorization/lab",
            is_output_node=True,
            inputs=[io.Int.Input("run", min=0, max=2**31, tooltip="Tells runs apart for the cache.")],
            outputs=[],
        )

    @classmethod
    def execute(cls, run: int) -> io.NodeOutput:
        gc.collect()
        # Not isinstance: asking a lazy import of another library for its class would load it.
        alive = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor | ModelPatcher)]
        tensors = [o for o in alive if issubclass(type(o), torch.Tensor)]
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        told = {"tensors": len(tensors), "bytes": sum(held.values()), "patchers": len(alive) - len(tensors)}
        return io.NodeOutput(ui={"told": [json.dumps(told)]})


NODES: list[type[io.ComfyNode]] = [StruckModel, Alive]
