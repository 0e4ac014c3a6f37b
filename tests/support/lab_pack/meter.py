"""What a run costs, and whether it leaves anything: a model that counts its calls and may fail at one, and reports."""

import ctypes
import gc
import json
import time
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from . import exact

ERRORS = {"exception": RuntimeError, "out of memory": torch.OutOfMemoryError}
FAULTS = ["none", *ERRORS, "nan", "quantized"]
MeterSocket = io.Custom("MGLAB_METER")


def schema(name: str, **facts: Any) -> io.Schema:
    return io.Schema(node_id=f"MGLab_{name}", display_name=f"{name} (lab)", category="memorization/lab", **facts)


def run_number() -> io.Int.Input:
    """Tells runs apart, so that the host's cache does not hand out what an earlier run has used."""
    return io.Int.Input("run", default=0, min=0, max=2**63 - 1, optional=True)


def plainly(apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
    return apply_model(args["input"], args["timestep"], **args["c"])


class Meter:
    """Counts a model's calls, their rows (one row is one sample under one condition) and their wall time.

    It may fail at one call, counted over everything that samples with this model, and never again.
    """

    def __init__(self, inner: Any = None, fault: str = "none", at_call: int = 1) -> None:
        self.inner = inner or plainly
        self.fault, self.at_call = fault, at_call
        self.calls = self.rows = 0
        self.first = self.last = 0.0

    def __deepcopy__(self, memo: dict) -> "Meter":
        return self  # a clone of the model copies its options deeply; the count stays one

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        self.first = self.first or time.monotonic()
        self.calls += 1
        fault = self.fault if self.calls == self.at_call else "none"
        if fault in ERRORS:
            raise ERRORS[fault]("injected fault")
        self.rows += len(args["input"])
        out = self.inner(apply_model, args)
        self.last = time.monotonic()
        return out * torch.nan if fault == "nan" else out  # a full_like would have no gradient

    def pop_rows(self) -> int:
        rows, self.rows = self.rows, 0
        return rows


class MeteredModel(io.ComfyNode):
    """A clone of the model that counts its evaluations and fails once, or one that cannot be differentiated."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        fault = io.Combo.Input("fault", options=FAULTS, optional=True)
        at_call = io.Int.Input("at_call", default=1, min=1, max=100000, optional=True)
        outputs = [io.Model.Output(), MeterSocket.Output(display_name="meter")]
        return schema("MeteredModel", inputs=[io.Model.Input("model"), fault, at_call, run_number()], outputs=outputs)

    @classmethod
    def execute(cls, model: ModelPatcher, fault: str = "none", at_call: int = 1, run: int = 0) -> io.NodeOutput:
        metered = exact.quantized(model) if fault == "quantized" else model.clone()
        meter = Meter(metered.model_options.get("model_function_wrapper"), fault, at_call)
        metered.set_model_unet_function_wrapper(meter)
        return io.NodeOutput(metered, meter)


class Tell(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        after = io.Latent.Input("after", tooltip="Read the meter when this is done.")
        measured = [io.Custom(f"MG_{name.upper()}").Input(name, optional=True) for name in ("curve", "report")]
        return schema("Tell", is_output_node=True, inputs=[MeterSocket.Input("meter"), after, *measured])

    @classmethod
    def execute(cls, meter: Meter, after: Any, curve: Any = None, report: Any = None) -> io.NodeOutput:
        told: dict[str, Any] = {"rows": meter.rows, "seconds": meter.last - meter.first, "calls": meter.calls}
        if curve is not None:
            told["d"] = curve.relative.nan_to_num(-1).tolist()
            told["transition"] = curve.transition.tolist()
        if report is not None:
            told |= {"std": report.std.tolist(), "iterations": report.iterations.tolist()}
            told |= {"after": (report.after / report.dim**0.5).tolist(), "reached": report.reached.tolist()}
        return io.NodeOutput(ui={"told": [json.dumps(told)]})


class Alive(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema("Alive", is_output_node=True, inputs=[run_number()])

    @classmethod
    def execute(cls, run: int = 0) -> io.NodeOutput:
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)  # what it keeps for later is no leak
        # Not isinstance: asking a lazy import of another library for its class would load it.
        alive = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor | ModelPatcher)]
        tensors = [o for o in alive if issubclass(type(o), torch.Tensor)]
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        told = {"tensors": len(tensors), "bytes": sum(held.values()), "patchers": len(alive) - len(tensors)}
        return io.NodeOutput(ui={"told": [json.dumps(told)]})
