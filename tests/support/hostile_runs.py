"""Hostile prompts for every node, as hypothesis draws them, and what came of a run: ran, or one clear sentence.

A case starts from inputs that work and replaces one to three of them. What costs only time (steps,
candidates, sizes) is drawn small, and beyond its range.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy
import torch
from hypothesis import strategies as st

import nodes as host_nodes
from support import graphs as prompts
from support import lab_graphs as lab_prompts
from support.executor import Host, NodeError, Prompt
from support.hostile_objects import NAN, Makers, anything
from support.lab_graphs import node

ENDLESS = {"dpm_adaptive"}  # the host's never ends on NaN or very large numbers
COSTLY = {"steps": 4, "max_iterations": 3, "adjustments": 3, "candidates": 4, "width": 200, "height": 200}
REFS = {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["works", 0], "captions": "a ring\na ring"}}
PICTURES, HOLDS = ["pictures", 0], ["refs", 0]
COMMON: dict[str, Any] = {k: v for k, v in prompts.ksampler()["inputs"].items() if isinstance(v, list)}
PLAN = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, **prompts.RULE}
SIZE = {"width": 64, "height": 64}
WHOLE: dict[str, dict[str, Any]] = {  # inputs of every node that work
    "MG_NoiseOptimizer": prompts.optimizer(max_iterations=2, candidates=2)["inputs"],
    "MG_BasinEscapeDetector": prompts.detector(steps=3)["inputs"],
    "MG_DeferredCFGKSampler": prompts.deferred(steps=3)["inputs"],
    "MG_DeferredCFGGuider": {k: COMMON[k] for k in ("model", "positive", "negative")} | {"cfg": 7.0, **PLAN},
    "MG_DeferredCFG": {"model": prompts.MODEL, **PLAN},
    "MG_AMGGuidance": prompts.amg()["inputs"],
    "MG_ReferencesFromFolder": {"folder": "hostile", "metric": "latent", **SIZE, "subfolders": True, "vae": ["vae", 0]},
    "MG_ReferencesFromImages": {"images": PICTURES, "captions": "", "metric": "latent", "vae": ["vae", 0]},
    "MG_ReferencesFromLatents": {"latents": prompts.LATENT, "captions": ""},
    "MG_Calibrate": {
        "model": prompts.MODEL,
        "clip": ["clip", 0],
        "latent_image": prompts.LATENT,
        "prompts": "memorized\nordinary",
        "noise_seed": 1,
    },
    "MG_SaveReferences": {"references": HOLDS, "name": "mine", "overwrite": True},
    "MG_LoadReferences": {"file": "whole.safetensors"},
    "MG_LoadCopyDetector": {"file": "random.safetensors"},
    "MG_CopyCheck": {
        "images": PICTURES,
        "references": HOLDS,
        "threshold": 0.5,
        "latent_threshold": 0.5,
        "nl2_threshold": 1.4,
        "vae": ["vae", 0],
    },
    "MG_PlotCurve": {"curve": ["curve", 0]},
}
TEXTS = ["", " ", "\n\n", "x" * 5000, "\x00", "\ud800", "𝕌", "<img src=x onerror=alert(1)>", "(((a:1e999", "a\nb\nc"]
PATHS = [
    "..",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    ".",
    "./",
    "a/../..",
    "a/../../b",
    "~",
    "$HOME",
    "%TEMP%",
    "C:\\Windows\\win.ini",
    "c:/x",
    "\\\\server\\share\\x",
    "//server/share/x",
    "\\\\?\\C:\\x",
    "..\\..\\x",
    "a\\..\\..\\b",
    "CON",
    "nul.safetensors",
    "a\x00b",
    "\x00",
    "x" * 5000,
    "d/" * 3000 + "x",
    "a/" * 40 + "x",
    "outside",
    "outside/x",
    "loop",
    "loop/x",
    "escape.safetensors",
    "\ud800",
    "a\nb",
    "file:///etc/passwd",
    "http://localhost/x",
    "-rf",
    "a:b",
    " lead",
    "trail. ",
    "…",
    "﷽" * 100,
    "x" * 251,
    ".hidden",
    "a/.hidden/b",
    "whole.safetensors/x",
    "*",
    "a|b",
    "",
]
ODD = st.sampled_from([None, True, False, "", "x", "7", "nan", NAN, float("inf"), -1, 2**64, 10**400, -(10**30), 1e308])


@dataclass(frozen=True, repr=False)
class Linked:
    """A value that comes over a link: the host checks neither its range nor its type."""

    what: str
    value: Any

    def __repr__(self) -> str:
        return f"Linked({self.what})"


@dataclass
class Tally:
    """What came of the inputs."""

    count: Counter = field(default_factory=Counter)  # outcome -> inputs
    said: Counter = field(default_factory=Counter)  # (who, kind, first words) -> inputs
    wrong: dict[str, str] = field(default_factory=dict)  # where -> the first input that went wrong there, and how

    def lines(self) -> list[str]:
        whole = sum(self.count.values())
        return [f"{whole} hostile inputs: " + ", ".join(f"{n} {what}" for what, n in self.count.most_common())]


def _number(spec: dict[str, Any], name: str, whole: bool) -> st.SearchStrategy:
    low, high = spec.get("min", -(2**31)), spec.get("max", 2**31)
    top = min(high, COSTLY.get(name, high))
    inside = st.integers(low, top) if whole else st.floats(low, top)
    if name == "denoise":  # the host counts steps / denoise steps, and never ends near 0
        inside = st.floats(0.1, high)
    edges = [low, low - 1, high + 1, low * 2 - 1, high * 2 + 1, *([] if name in COSTLY else [high])]
    return st.one_of(inside, inside, st.sampled_from(edges), ODD)


def values(name: str, spec: tuple, pool: dict[str, Makers]) -> st.SearchStrategy:
    """A literal that the prompt can carry, or something over a link."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if name in ("name", "file", "folder"):
        plain = st.one_of(st.sampled_from(PATHS), st.text(max_size=30), ODD)
    elif isinstance(kind, list) or kind == "COMBO":
        choices = list(kind) if isinstance(kind, list) else list(options.get("options") or [])
        plain = st.one_of(st.sampled_from([*(c for c in choices if c not in ENDLESS), "magic", ""]), ODD)
    elif kind in ("INT", "FLOAT"):
        plain = _number(options, name, kind == "INT")
    elif kind == "STRING":
        plain = st.one_of(st.sampled_from(TEXTS), st.text(max_size=60), ODD)
    elif kind == "BOOLEAN":
        plain = st.one_of(st.booleans(), ODD)
    else:
        return _object(kind, pool)
    linked = st.one_of(
        plain.map(lambda v: Linked(repr(v)[:60], v)), plain.map(lambda v: Linked(repr(v)[:60], v)), _any()
    )
    return st.one_of(plain, linked)


def _any() -> st.SearchStrategy:
    made = anything()
    return st.sampled_from(sorted(made)).map(lambda name: Linked(name, made[name]()))


def _object(kind: str, pool: dict[str, Makers]) -> st.SearchStrategy:
    own, others = pool.get(kind, {}), {n: m for makers in pool.values() for n, m in makers.items()}

    def of(makers: Makers) -> st.SearchStrategy:
        return st.sampled_from(sorted(makers)).map(lambda name: Linked(name, makers[name]()))

    return st.one_of(of(own), of(own), of(own), of(own), of(others), _any())


@st.composite
def inputs(draw: Callable, class_type: str, pool: dict[str, Makers]) -> dict[str, Any]:
    """What to put in place of a node's inputs."""
    info = host_nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES()
    specs = {**info.get("required", {}), **info.get("optional", {})}
    changed = draw(st.lists(st.sampled_from(sorted(specs)), min_size=1, max_size=3, unique=True))
    return {name: draw(values(name, specs[name], pool)) for name in changed}


def prompt_of(class_type: str, changed: dict[str, Any]) -> tuple[Prompt, dict[str, Any]]:
    """The prompt with the node `n`, what uses its output, and the objects that come over links."""
    given = {f"given_{name}": v.value for name, v in changed.items() if isinstance(v, Linked)}
    put = {name: [f"given_{name}", 0] if isinstance(v, Linked) else v for name, v in changed.items()}
    prompt = {"lab": prompts.lab(2), "refs": REFS, "n": node(class_type, **{**WHOLE[class_type], **put})}
    if class_type in ("MG_DeferredCFG", "MG_AMGGuidance"):
        prompt["k"] = prompts.ksampler(model=["n", 0], steps=3)
    if class_type == "MG_DeferredCFGGuider":
        prompt |= lab_prompts.advanced(["n", 0], COMMON, steps=3)
    if class_type == "MG_NoiseOptimizer":
        prompt["k"] = prompts.deferred("off", noise=["n", 0], steps=1)
    if class_type in ("MG_DeferredCFGKSampler", "MG_BasinEscapeDetector"):
        prompt["k"] = node("MG_PlotCurve", curve=["n", 1 if class_type == "MG_DeferredCFGKSampler" else 3])
    if class_type.startswith("MG_References") or class_type == "MG_LoadReferences":
        prompt["s"] = node("MG_SaveReferences", references=["n", 0], name="made of hostile ones", overwrite=True)
    return prompt, given


FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
COMFY = Path(comfy.__path__[0]).resolve().parent


def _who(trace: str) -> str:
    """Whose code raised it: the innermost frame that is neither Python's nor a library's."""
    for file, line, function in reversed(FRAME.findall(trace)):
        if "/custom_nodes/memorization_guard/" in file:
            return f"our {'/'.join(Path(file).parts[-2:])}:{line} {function}"
        if Path(file).is_relative_to(COMFY) or "/tests/" in file or "memorization_guard_lab" in file:
            return f"the host's or another pack's {Path(file).name}:{line} {function}"
    return "nobody"


def judge(host: Host, prompt: Prompt, given: dict[str, Any], tally: Tally, changed: Any = None) -> None:
    """Run it, and note anything but a result or one clear sentence as wrong."""
    names = {
        host_nodes.NODE_DISPLAY_NAME_MAPPINGS[n["class_type"]]
        for n in prompt.values()
        if n["class_type"].startswith("MG_")
    }
    who, wrong = "", ""
    try:
        host.run(prompt, given)
        tally.count["ran"] += 1
    except NodeError as error:
        if not error.traceback:
            tally.count["refused by the host's validation"] += 1
            if error.kind == "exception_during_validation":
                wrong = f"while the host validated: {error}"
        elif error.kind.endswith("GuardError"):
            tally.count["refused by us in one sentence"] += 1
            if not any(error.message.startswith(f"{n}: ") for n in names | {"Deferred CFG", "Noise Optimizer"}):
                wrong = f"names no node: {error}"
            if not 20 < len(error.message) < 900 or "Traceback" in error.message:
                wrong = f"not one sentence: {error}"
        else:
            who = _who(error.traceback)
            tally.count["failed in the host's or another pack's code"] += 1
            if who.startswith("our "):
                wrong = f"{who}: {error}"
        tally.said[(who.split(" ")[0], error.kind.rsplit(".", 1)[-1], f"{who}: {error.message[:90]}")] += 1
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        wrong = "autograd was left in another state"
    if wrong:
        tally.wrong.setdefault(who or wrong[:60], f"{wrong:.600}\n    with {changed!s:.300}")
