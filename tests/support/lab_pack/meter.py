"""Count what a run costs: a model that counts its evaluations, and a node that tells what was measured."""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io


class Meter:
    """Counts model evaluations in rows (one row is one sample under one condition) and their wall time."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner
        self.rows = 0
        self.first = self.last = 0.0

    def __deepcopy__(self, memo: dict) -> Meter:
        return self  # a clone of the model copies its options deeply; the count stays one

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        self.first = self.first or time.monotonic()
        self.rows += len(args["input"])
        if self.inner is not None:
            out = self.inner(apply_model, args)
        else:
            out = apply_model(args["input"], args["timestep"], **args["c"])
        self.last = time.monotonic()
        return out

    def pop_rows(self) -> int:
        """The rows since the last call."""
        rows, self.rows = self.rows, 0
        return rows


MeterSocket = io.Custom("MGLAB_METER")


class MeteredModel(io.ComfyNode):
    """A clone of the model that counts its evaluations."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_MeteredModel",
            display_name="Metered Model (lab)",
            category="memorization/lab",
            inputs=[io.Model.Input("model"), io.Int.Input("run", default=0, min=0, max=2**63 - 1)],
            outputs=[io.Model.Output(), MeterSocket.Output(display_name="meter")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, run: int) -> io.NodeOutput:
        """`run` tells runs apart, so that the host's cache does not hand out a used meter."""
        metered = model.clone()
        meter = Meter(metered.model_options.get("model_function_wrapper"))
        metered.set_model_unet_function_wrapper(meter)
        return io.NodeOutput(metered, meter)


class Tell(io.ComfyNode):
    """Puts what a run measured into its history as JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MGLab_Tell",
            display_name="Tell (lab)",
            category="memorization/lab",
            is_output_node=True,
            inputs=[
                MeterSocket.Input("meter"),
                io.Latent.Input("after", tooltip="Read the meter when this is done."),
                io.Custom("MG_CURVE").Input("curve", optional=True),
                io.Custom("MG_REPORT").Input("report", optional=True),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, meter: Meter, after: Any, curve: Any = None, report: Any = None) -> io.NodeOutput:
        told: dict[str, Any] = {"rows": meter.rows, "seconds": meter.last - meter.first}
        if hasattr(meter, "calls"):
            told["calls"] = meter.calls
        if curve is not None:
            told["d"] = curve.relative.nan_to_num(-1).tolist()
            told["transition"] = curve.transition.tolist()
        if report is not None:
            told |= {"std": report.std.tolist(), "iterations": report.iterations.tolist()}
            told |= {"after": (report.after / report.dim**0.5).tolist(), "reached": report.reached.tolist()}
        return io.NodeOutput(ui={"told": [json.dumps(told)]})


NODES: list[type[io.ComfyNode]] = [MeteredModel, Tell]
