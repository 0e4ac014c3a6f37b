"""A method is data: which inputs of the pack's nodes differ from the defaults of their schema."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .cases import BenchmarkError

Inputs = dict[str, Any]
NODES = {
    "guard": "MG_Guard",
    "noise": "MG_NoiseOptimizer",
    "references": "MG_ReferencesFromFolder",
    "guidance": "MG_AMGGuidance",
    "sampler": "MG_DeferredCFGKSampler",
    "attenuation": "MG_AttentionAttenuation",
    "reanchoring": "MG_PromptReanchor",
}
PATCHES = ("attenuation", "reanchoring")  # of the model, in front of the host's KSampler
EVERY = "*"


@dataclass(frozen=True)
class Method:
    """`inputs`: key of NODES -> inputs that differ from the defaults; a node that is absent is not used.

    Without inputs the host's own KSampler samples.
    """

    family: str
    strength: str = ""
    inputs: Mapping[str, Inputs] = field(default_factory=dict)
    peer: bool = False  # other authors' method or released code
    paper: str = ""  # the row of a paper that it reproduces
    # Makes the prompts' conditioning: (checkpoint, texts, seed) -> CONDITIONING of one row a text.
    conditioning: Callable[[Any, list[str], int], list] | None = None

    @property
    def name(self) -> str:
        return f"{self.family}, {self.strength}" if self.strength else self.family

    @property
    def references(self) -> Inputs | None:
        folder = "folder" in self.inputs.get("guard", {})
        return self.inputs.get("references", {}) if folder or "guidance" in self.inputs else None


NONE = Method("no mitigation")


def deferred(mode: str, **changed: Any) -> dict[str, Inputs]:
    return {"sampler": {"mode": mode, **changed}}


def chosen(methods: list[Method], names: list[str] | None) -> list[Method]:
    """The methods that have one of `names`, or a name that contains it, and always `no mitigation`."""
    if not names:
        return methods
    every = {m.name.casefold() for m in methods}
    asked = {n.casefold(): {n.casefold()} & every or {e for e in every if n.casefold() in e} for n in names}
    if unknown := [n for n, found in asked.items() if not found]:
        known = "; ".join(m.name for m in methods)
        raise BenchmarkError(f"--methods: no method is called {', '.join(unknown)}. Choose from: {known}.")
    wanted = set().union(*asked.values())
    return [m for m in methods if m is NONE or m.name.casefold() in wanted]


def with_settings(methods: list[Method], settings: Any) -> list[Method]:
    """Methods with inputs changed: a method's name, its family or * -> key of NODES -> inputs.

    A full name may add a node to its method; a family or * changes only the nodes that a method already has.
    """
    if not isinstance(settings, dict):
        raise BenchmarkError("--settings must hold an object: method -> node -> inputs.")
    known = {EVERY, *(m.family for m in methods), *(m.name for m in methods)}
    for name, nodes in settings.items():
        if name not in known:
            raise BenchmarkError(f"--settings: no method is called {name!r}. Choose from: {'; '.join(sorted(known))}.")
        if not isinstance(nodes, dict) or any(n not in NODES or not isinstance(i, dict) for n, i in nodes.items()):
            raise BenchmarkError(f"--settings: {name!r} takes {', '.join(NODES)}, each with inputs of that node.")
    return [_changed(m, settings) if m is not NONE else m for m in methods]


def _changed(method: Method, settings: Mapping[str, Any]) -> Method:
    inputs = dict(method.inputs)
    for name in (EVERY, method.family, method.name):
        for node, changed in settings.get(name, {}).items():
            if node in inputs or name == method.name:
                inputs[node] = {**inputs.get(node, {}), **changed}
    return replace(method, inputs=inputs)


def checked(of: str, changed: Mapping[str, Any]) -> Inputs:
    """The same inputs, if the node has them and they may have these values.

    The host does not check the choices of a V3 node, and replaces a sampler that it does not know.
    """
    known = _widgets(of)
    free = {"references": ("metric", "folder"), "guard": ("folder",)}.get(of, ())  # these are the run's own
    if foreign := sorted(set(changed) - set(known) - set(free)):
        raise BenchmarkError(f"{NODES[of]} has no input {', '.join(foreign)}. It has: {', '.join(sorted(known))}.")
    for name, value in changed.items():
        kind, said = known.get(name, ("", {}))
        choices = kind if isinstance(kind, list) else said.get("options")
        if choices is not None and name not in free and value not in choices:
            raise BenchmarkError(f"{NODES[of]}: {name} is {value!r}; choose one of {', '.join(map(str, choices))}.")
        low, high = said.get("min"), said.get("max")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if low is not None and high is not None and not (number and low <= value <= high):
            raise BenchmarkError(f"{NODES[of]}: {name} is {value!r}; it must lie between {low} and {high}.")
    return dict(changed)


def _widgets(of: str) -> dict[str, tuple[Any, Inputs]]:
    import nodes  # the host's

    kinds = nodes.NODE_CLASS_MAPPINGS[NODES[of]].INPUT_TYPES()
    declared = {**kinds.get("required", {}), **kinds.get("optional", {})}
    return {name: (spec[0], spec[1]) for name, spec in declared.items() if len(spec) > 1 and "default" in spec[1]}
