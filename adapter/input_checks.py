"""Check what a node is given against its own schema, before it runs.

The host checks the range of a number that is typed in, but not of one that comes over a link, and it lets NaN pass.
It does not check the choices of a V3 node. A socket may carry None: a checkpoint without a VAE gives one.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.references.reference_set import ReferenceSet
from .errors import GuardError, dims
from .memory import explain_out_of_memory

ROUNDING = 1e-6  # of a number that another node calculated, as a share of the range
ON_DISK = ("file", "folder")  # not checked here: files may have been added, and the nodes report missing ones
CONNECT = {  # socket -> what to connect
    "MODEL": "Connect a model, as Load Checkpoint gives it.",
    "CONDITIONING": "Connect a prompt, as CLIP Text Encode gives it.",
    "LATENT": "Connect a latent, as Empty Latent Image or VAE Encode gives it.",
    "IMAGE": "Connect images, as Load Image or VAE Decode gives them.",
    "NOISE": "Connect a noise, as Random Noise or the Noise Optimizer gives it.",
    "SIGMAS": "Connect a schedule, as Basic Scheduler gives it.",
    "VAE": "The checkpoint may not contain one: connect a VAE, as Load VAE gives it.",
    "CLIP": "The checkpoint may not contain one: connect a text encoder, as Load CLIP gives it.",
    "MG_CURVE": "Connect a curve, as the Basin-Escape Detector gives it.",
    "MG_REFERENCES": "Connect a reference set, as the References nodes give it.",
    "MG_DESCRIPTOR,CLIP_VISION": "Connect Load Copy Detector (SSCD) or Load CLIP Vision.",
}
FITS: dict[str, Callable[[Any], bool]] = {  # for our own sockets; the host's objects say themselves what they lack
    "MG_CURVE": lambda value: isinstance(value, EscapeCurve),
    "MG_REFERENCES": lambda value: isinstance(value, ReferenceSet),
    "MG_DESCRIPTOR,CLIP_VISION": lambda value: hasattr(value, "patcher"),
}


def check_inputs(execute: Callable) -> Callable:
    """For a node's `execute`, below @classmethod: raise a GuardError for the first input that does not fit.

    A node that takes lists (`is_input_list`) names in `LIST` the one input that may have several values; the others
    arrive as single values.
    Running out of memory also becomes a GuardError, unless the code inside has already explained it.
    """

    @functools.wraps(execute)
    def run(cls: Any, **given: Any) -> Any:
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        for spec in schema.inputs:
            if spec.id not in given:
                continue
            values = given[spec.id] if schema.is_input_list else [given[spec.id]]
            many = schema.is_input_list and spec.id == cls.LIST
            if not values:
                wrong = f"is an empty list. {CONNECT.get(str(spec.get_io_type()), 'Connect a value, or type it in.')}"
            elif len(values) > 1 and not many:
                wrong = f"is a list of {len(values)}. Only `{cls.LIST}` may be a list: connect one."
            else:
                wrong = next(filter(None, (_wrong(cls, spec, value) for value in values)), "")
                given[spec.id] = values if many else values[0]
            if wrong:
                raise GuardError(f"{schema.display_name}: `{spec.id}` {wrong}")
        with explain_out_of_memory(
            schema.display_name, "Set a smaller batch or smaller images, and free what else is loaded."
        ):
            return execute(cls, **given)

    return run


def _wrong(cls: Any, spec: Any, value: Any) -> str:
    """What is wrong with it and what to do, or an empty text."""
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
    if value is None and spec.optional:  # as if it were not connected; the node says when it needs it
        return ""
    if value is not None and FITS.get(kind, lambda _: True)(value):
        return ""
    return f"is {_short(value)}. {CONNECT.get(kind, '')}"


def _wrong_number(spec: Any, value: Any, whole: bool) -> str:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
        return f"is {_short(value)}, not a {'whole ' if whole else ''}number. Connect one, or type it in."
    low, high = spec.min, spec.max
    spare = 0.0 if whole else ROUNDING * (high - low)
    if low - spare <= value <= high + spare:  # false for NaN
        return ""
    return f"is {_short(value)}, but has to be from {low} to {high}."


def _short(value: Any) -> str:
    """The value in a few words: of a tensor its shape, of an object its kind."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {dims(value.shape) or '(one number)'}, {value.dtype}"
    if value is None or isinstance(value, bool | int | float | str):
        huge = isinstance(value, int) and value.bit_length() > 200  # Python refuses to write it out
        return "empty" if value is None else "a number of more than 60 digits" if huge else repr(value)[:60]
    return f"of the type {type(value).__name__}"
