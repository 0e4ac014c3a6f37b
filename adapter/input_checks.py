"""What a node is handed, check_inputs against its own schema before it begins.

The host checks the range of a number that is typed in, but not of one that comes over a link, and NaN passes;
it checks no choice of a V3 node; and a socket takes whatever comes out of a node that declares to fit everything,
as switches and reroutes of other packs do.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .errors import GuardError
from .memory import explain_out_of_memory

ROUNDING = 1e-6  # of a number that another node calculated, as a share of the range
ON_DISK = ("file", "folder")  # their choices are what lies on the disk now; the nodes say what is missing where


def check_inputs(execute: Callable) -> Callable:
    """For a node's `execute`, below @classmethod: raises a GuardError for the first input that does not fit.

    Out of memory that nothing inside has a better word for becomes one, too.
    """

    @functools.wraps(execute)
    def run(cls, **given):
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        for spec in schema.inputs:
            unconnected = spec.optional and str(spec.get_io_type()) in SOCKETS and given.get(spec.id) is None
            if spec.id in given and not unconnected:
                wrong = _wrong(cls, spec, given[spec.id])
                if wrong:
                    raise GuardError(f"{schema.display_name}: `{spec.id}` {wrong}")
        with explain_out_of_memory(
            schema.display_name, "Set a smaller batch or smaller pictures, and free what else is loaded."
        ):
            return execute(cls, **given)

    return run


def _wrong(cls, spec, value: Any) -> str:
    """What is wrong with it and what to do, or nothing."""
    kind = str(spec.get_io_type())
    if kind in ("INT", "FLOAT"):
        return _wrong_number(spec, value, whole=kind == "INT")
    if kind == "COMBO" and spec.id not in ON_DISK:
        options = spec.options
        if not isinstance(value, str) or value not in options:  # another pack may have added some since
            options = next(i.options for i in cls.define_schema().inputs if i.id == spec.id)
        known = isinstance(value, str) and value in options
        return "" if known else f"is {_short(value)}; choose one of {', '.join(map(str, options))}."
    if kind in ("STRING", "COMBO"):
        if value is None and spec.id in ON_DISK:  # a widget without choices has no value
            return ""
        return "" if isinstance(value, str) else f"is {_short(value)}, not a text. Type one in."
    if kind == "BOOLEAN":
        return "" if isinstance(value, numbers.Real) else f"is {_short(value)}. Connect true or false, or choose one."
    fits, what = SOCKETS.get(kind, (lambda _: True, ""))
    return "" if fits(value) else f"is {_short(value)}. {what}"


def _wrong_number(spec, value: Any, whole: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        return f"is {_short(value)}, not a {'whole ' if whole else ''}number. Connect one, or type it in."
    low, high = spec.min, spec.max
    spare = 0.0 if whole else ROUNDING * (high - low)
    if low - spare <= value <= high + spare:  # false for NaN
        return ""
    return f"is {_short(value)}, but has to be from {low} to {high}."


def _is_conditioning(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(c, list | tuple) and len(c) > 1 and isinstance(c[0], Tensor) and isinstance(c[1], dict)
        for c in value
    )


def _is_latent(value: Any) -> bool:
    """A latent; one without samples is the node's own to refuse."""
    if not isinstance(value, dict):
        return False
    samples = value.get("samples")
    if not isinstance(samples, Tensor):
        return samples is None
    return getattr(samples, "is_nested", False) or (samples.ndim >= 3 and samples.is_floating_point())


def _is_image(value: Any) -> bool:
    """A batch of pictures; one without any is the node's own to refuse."""
    return isinstance(value, Tensor) and value.ndim == 4 and min(value.shape[1:]) > 0 and value.is_floating_point()


def _is_schedule(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 1 and bool((value >= 0).all()) and bool(value.isfinite().all())


def _is_curve(value: Any) -> bool:
    names = ("d", "pull", "sigmas", "transition", "memorized")
    parts = [part for name in names if isinstance(part := getattr(value, name, None), Tensor)]
    if len(parts) < len(names):
        return False
    d, pull, sigmas, transition, memorized = parts
    if d.ndim != 2 or pull.shape != d.shape or len(d) == 0 or sigmas.shape != (d.shape[1] + 1,):
        return False
    if transition.shape != d.shape[:1] or memorized.shape != d.shape[:1] or transition.is_floating_point():
        return False
    inside = bool((transition >= 0).all()) and bool((transition <= d.shape[1]).all())
    numbers_too = isinstance(value.dim, numbers.Integral) and isinstance(value.threshold, numbers.Real)
    return inside and numbers_too and value.dim > 0 and bool(sigmas.isfinite().all())


def _is_reference_set(value: Any) -> bool:
    if not isinstance(getattr(value, "features", None), Tensor):
        return False
    try:
        value.__post_init__()  # its parts fit together
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _is_vae(value: Any) -> bool:
    return _calls("encode", "decode")(value) and _calls("state_dict")(getattr(value, "first_stage_model", None))


def _calls(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(callable(getattr(value, name, None)) for name in names)


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(getattr(value, name, None) is not None for name in names)


def _is_descriptor(value: Any) -> bool:
    """A copy detector, or the host's CLIP_VISION."""
    clip_vision = ("patcher", "model", "image_size", "image_mean", "image_std")
    return _has("patcher", "embed")(value) or _has(*clip_vision)(value)


DESCRIPTOR = (_is_descriptor, "Connect Load Copy Detector (SSCD) or Load CLIP Vision.")
SOCKETS: dict[str, tuple[Callable[[Any], bool], str]] = {  # socket -> (does it fit?, what to do if not)
    "MODEL": (
        _calls("clone", "get_model_object", "add_wrapper_with_key", "remove_wrappers_with_key"),
        "Connect a model, as Load Checkpoint gives it.",
    ),
    "CONDITIONING": (_is_conditioning, "Connect a prompt, as CLIP Text Encode gives it."),
    "LATENT": (_is_latent, "Connect a latent, as Empty Latent Image or VAE Encode gives it."),
    "IMAGE": (_is_image, "Connect pictures, as Load Image or VAE Decode gives them."),
    "NOISE": (_calls("generate_noise"), "Connect a noise, as Random Noise or the Noise Optimizer gives it."),
    "SIGMAS": (_is_schedule, "Connect a schedule, as Basic Scheduler gives it."),
    "VAE": (_is_vae, "The checkpoint may hold none: connect a VAE, as Load VAE gives it."),
    "CLIP": (
        _calls("tokenize", "encode_from_tokens_scheduled"),
        "The checkpoint may hold none: connect a text encoder, as Load CLIP gives it.",
    ),
    "MG_CURVE": (_is_curve, "Connect a curve, as the Basin-Escape Detector gives it."),
    "MG_REFERENCES": (_is_reference_set, "It is not a reference set: connect one of the References nodes."),
    "MG_DESCRIPTOR": DESCRIPTOR,
    "MG_DESCRIPTOR,CLIP_VISION": DESCRIPTOR,
}


def _short(value: Any) -> str:
    """The value in a few words: of a tensor its shape, of an object its kind."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {' × '.join(map(str, value.shape)) or '(one number)'}, {value.dtype}"
    if value is None or isinstance(value, bool | int | float | str):
        return "empty" if value is None else _repr(value)
    return f"of the type {type(value).__name__}"


def _repr(value: bool | int | float | str) -> str:
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to write out the longest ones
        return "a number of more than 60 digits"
    return repr(value)[:60]
