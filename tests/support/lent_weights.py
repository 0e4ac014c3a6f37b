"""Weights that the host lends to a layer for one call, on the CPU, as dynamic VRAM and offload do on a GPU.

A layer computes with raw memory that was handed out under inference mode, that the next layer may reuse, and that may
be gone before the backward pass. Where the host has dynamic VRAM, only the native memory below its code is replaced.
"""

import copy
import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, TypeVar

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import pytest
import safetensors.torch
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from support.families.kinds import LeftBehind
from support.paths import SMALL_CHECKPOINT

DYNAMIC = hasattr(comfy.model_patcher, "ModelPatcherDynamic")
CAST = "cast"  # as evicted, and the file holds fp16 that is computed in fp32
STATES = ("resident", "offloaded", "evicted", *(["streams"] if DYNAMIC else []), CAST)
# Where models compute. It is the CPU, but it does not equal torch.device("cpu"), where their weights lie.
DEVICE, CPU = torch.device("cpu", 0), torch.device("cpu")
T = TypeVar("T")
NAN = 0xFF  # four of these bytes are a NaN


class Memory:
    """Native memory with one owner for each allocation; `state` says what becomes of an allocation."""

    def __init__(self, size: int, device: int = 0) -> None:
        self.bytes = bytearray(int(size) + 1)
        self.base = ctypes.addressof(ctypes.c_uint8.from_buffer(self.bytes))
        self.used = 0
        self.generation: dict[int, int] = {}

    def alloc(self, size: int) -> tuple["Memory", int, int]:
        self.used += -(-size // 1024) * 1024
        return self, self.base + self.used - -(-size // 1024) * 1024, size

    def get(self, size: int, offset: int = 0) -> tuple["Memory", int, int]:
        return self, self.base + offset, size

    def size(self) -> int:
        return len(self.bytes)

    def nothing(self, *_: Any) -> int:
        return 0

    prioritize = deprioritize = loaded_size = free_memory = nothing


def raw(allocation: tuple[Memory, int, int], device: object = None) -> Tensor:
    """A tensor that knows nothing of the others on the same bytes."""
    _, address, size = allocation
    return torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)


class Lender:
    """What becomes of a layer's memory: it stays, it is a buffer that all layers share, or it goes after each use."""

    def __init__(self, state: str) -> None:
        self.state, self.numbers = "evicted" if state == CAST else state, itertools.count()
        self.shared = Memory(2**24)

    def fault(self, allocation: tuple[Memory, int, int]) -> tuple[int] | None:
        memory, address, _ = allocation
        if self.state == "offloaded":
            return None
        return (memory.generation.setdefault(address, next(self.numbers)),)

    def unpin(self, allocation: tuple[Memory, int, int] | None) -> None:
        if self.state == "evicted" and allocation is not None:
            memory, address, size = allocation
            ctypes.memset(address, NAN, size)
            memory.generation.pop(address, None)


class Stream:
    """A CUDA stream that has always finished."""

    as_context = staticmethod(lambda _: nullcontext())

    def wait_stream(self, *_: object) -> None:
        pass

    synchronize = wait_stream


def loaded(stored: torch.dtype | None = None, computed: torch.dtype | None = None) -> dict[str, Any]:
    """The lab checkpoint's MODEL `m`, held in `stored` and computed in `computed`, and its VAE `vae`."""
    options = {"dtype": stored} if stored else {}
    with torch.inference_mode():
        load = comfy.sd.load_checkpoint_guess_config
        model, _, vae, _ = load(str(SMALL_CHECKPOINT), output_clip=False, model_options=options)
    if computed:
        model.set_model_compute_dtype(computed)
    return {"m": model, "vae": vae}


def recast(plain: ClipVisionModel, dtype: torch.dtype) -> ClipVisionModel:
    made = copy.copy(plain)
    with torch.inference_mode():
        made.model = copy.deepcopy(plain.model).to(dtype)
    made.patcher = ModelPatcher(made.model, plain.patcher.load_device, CPU)
    return made


class Lending:
    def __init__(self, state: str) -> None:
        self.stored = torch.float16 if state == CAST else None

    def checkpoint(self, half: torch.dtype | None = None) -> dict[str, Any]:
        given = loaded(half or self.stored, half or (torch.float32 if self.stored else None))
        return {name: self.lent(made) for name, made in given.items()}

    def clip_vision(self, plain: ClipVisionModel) -> ClipVisionModel:
        made = recast(plain, self.stored or torch.float32)
        if DYNAMIC:
            made.patcher = comfy.model_patcher.CoreModelPatcher(made.model, DEVICE, CPU)
        return self.lent(made)

    def lent(self, made: T) -> T:
        """What dynamic VRAM does when it loads a model, on hosts without it."""
        if not DYNAMIC:
            for layer in getattr(made, "patcher", made).model.modules():
                if hasattr(layer, "comfy_cast_weights"):
                    layer.comfy_cast_weights, layer._v = True, {}
        return made


@contextmanager
def lending(state: str) -> Iterator[Lending]:
    """Inside, models can be made whose weights are lent as `state` says."""
    with pytest.MonkeyPatch.context() as patch:
        if DYNAMIC:
            _replace_native_memory(patch, state)
        else:
            patch.setattr(comfy.ops, "cast_bias_weight", _cast_of_an_older_host(Lender(state)))
        yield Lending(state)


def _replace_native_memory(patch: pytest.MonkeyPatch, state: str) -> None:
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    import comfy_aimdo.vram_buffer

    lender, streams = Lender(state), itertools.cycle([Stream(), Stream()])
    management = comfy.model_management
    patch.setattr(management, "get_torch_device", lambda: DEVICE)
    patch.setattr(management, "is_device_cpu", lambda device: device.type == "cpu" and device.index is None)
    patch.setattr(management, "get_offload_stream", lambda device: next(streams))
    patch.setattr(management.args, "disable_pinned_memory", True)
    patch.setattr(comfy_aimdo.model_vbar, "ModelVBAR", Memory)
    patch.setattr(comfy_aimdo.model_vbar, "vbar_fault", lender.fault)
    patch.setattr(comfy_aimdo.model_vbar, "vbar_unpin", lender.unpin)
    patch.setattr(comfy_aimdo.model_vbar, "vbar_signature_compare", lambda a, b: a is not None and a == b)
    patch.setattr(comfy_aimdo.model_vbar, "vbars_analyze", lambda device: 0)
    patch.setattr(comfy_aimdo.torch, "aimdo_to_tensor", raw)
    patch.setattr(comfy_aimdo.vram_buffer, "VRAMBuffer", lambda size, device: lender.shared)
    patch.setattr(comfy_aimdo.host_buffer, "HostBuffer", lambda *_: SimpleNamespace(size=0))
    patch.setattr(management, "DEFAULT_AIMDO_CAST_BUFFER_RESERVATION_SIZE", 2**24)
    real = comfy.ops.cast_bias_weight

    def load(file: str) -> tuple[dict[str, Tensor], dict]:
        """The lab's file holds fp16, and a cast would be a copy, which hides what lending does."""
        return {n: w if state == CAST else w.float() for n, w in safetensors.torch.load_file(file).items()}, {}

    def cast(s: nn.Module, input: Any = None, dtype: Any = None, device: Any = None, *args: Any, **kwargs: Any):
        lent = hasattr(s, "_v") or state == "streams"
        return real(s, input, dtype, DEVICE if lent else device, *args, **kwargs)

    patch.setattr(comfy.utils, "load_safetensors", load)
    patch.setattr(comfy.ops, "cast_bias_weight", cast)
    if state == "streams":  # the legacy patcher, of which nothing fits
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", LeftBehind)
    else:
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
        patch.setattr(comfy.memory_management, "aimdo_enabled", True)


def _cast_of_an_older_host(lender: Lender) -> Callable:
    """The host's function for layers that hold their weights, and for the others raw memory filled for this call."""
    real = comfy.ops.cast_bias_weight
    last: list[tuple[Memory, int, int]] = []

    def lend(layer: nn.Module, name: str, offset: int) -> Tensor | None:
        held = getattr(layer, name)
        if held is None:
            return None
        size = held.numel() * held.element_size()
        if name not in layer._v:
            layer._v[name] = lender.shared.get(size, offset) if lender.state == "offloaded" else Memory(size).get(size)
        signature, resident = lender.fault(layer._v[name]), getattr(layer, f"_v_{name}", (None, None))
        if signature is None or signature != resident[0]:
            resident = signature, raw(layer._v[name]).view(held.dtype).view(held.shape)
            resident[1].copy_(held)
            setattr(layer, f"_v_{name}", resident)
        last.append(layer._v[name])
        return resident[1]

    def cast(s: nn.Module, input: Any = None, dtype: Any = None, *args: Any, offloadable: bool = False, **kw: Any):
        if not hasattr(s, "_v"):
            return real(s, input, dtype, *args, **({"offloadable": True} if offloadable else {}), **kw)
        while last:
            lender.unpin(last.pop())
        found, offset = [], 0
        for name in ("weight", "bias"):
            lent = lend(s, name, offset)
            if lent is not None:
                offset += -(-lent.numel() * lent.element_size() // 1024) * 1024
                lent = lent.to(dtype or input.dtype)
                for function in getattr(s, f"{name}_function"):
                    lent = function(lent)
            found.append(lent)
        return (*found, None) if offloadable else tuple(found)

    return cast
