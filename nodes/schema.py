"""Our own socket types and the inputs that several nodes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..methods.deferred_cfg.plan import MODES
from ..mitigation import published_settings as published
from ..mitigation.escape.rules import RULES
from ..mitigation.references.reference_set import METRICS

CATEGORY = "memorization"

Report = io.Custom("MG_REPORT")
Curve = io.Custom("MG_CURVE")
References = io.Custom("MG_REFERENCES")  # a mitigation.references.ReferenceSet
Descriptor = io.Custom("MG_DESCRIPTOR")  # an adapter.copy_detector.LoadedDescriptor
TOOLTIPS = {
    "null": "The empty prompt: a CLIP Text Encode without text. Connect it if your negative prompt is not empty. The "
    "node then compares your prompt with the empty prompt, which is the right comparison. If nothing is connected "
    "here, the node compares your prompt with your negative prompt and may miss a memorized prompt.",
    "cfg": "The guidance scale (CFG) that an image gets after guidance has started for it. Higher: the image follows "
    "the prompt more closely, but is also pulled harder towards a memorized image.",
    "curve": "Only in dynamic mode: a curve from the Basin-Escape Detector or from another run decides when guidance "
    "starts. The node then measures nothing, so drop_ratio, memorized_threshold and rule have no effect. Without a "
    "curve, the model runs twice per step as long as guidance is delayed. With a curve and a pre_escape_cfg of 0 or 1, "
    "the model runs only once in each of these steps.",
    "rule": "How the node decides that the prompt no longer pulls an image towards a training image. Sharp drop: the "
    "pull is far below its highest value so far and has stopped falling. Local minimum: the difference between the "
    "model's predictions with and without the prompt has fallen and now rises again (the rule of Jain et al.). This "
    "rule decides at an earlier step than sharp drop does, but is less reliable.",
    "drop_ratio": "Sharp drop only: how far the prompt's pull towards a training image must fall before guidance "
    "starts. The node squares `drop_ratio`, so with 0.5 the pull must fall to 0.25 times its highest value so far. "
    "Lower: guidance starts later. This gives fewer copies, but guidance has fewer steps to make the image follow the "
    "prompt.",
    "memorized_threshold": "The pull is how far guidance (CFG) would move an image. If the pull at the first step is "
    "at least this value, the node delays guidance for this image. If the pull is smaller, the node changes nothing. "
    "Lower: the node finds more of the memorized prompts, but also delays guidance more often for ordinary prompts.",
    "mode": "Dynamic: measures each image and starts guidance (CFG) when the prompt no longer pulls this image towards "
    "a training image. Static: starts guidance for all images at start_percent. If pre_escape_cfg is 0 or 1, static "
    "also saves time: a step before start_percent costs half as much as a step with guidance. Off: does not delay "
    "guidance.",
    "pre_escape_cfg": "CFG scale for the steps in which guidance is delayed. With 0, the sampler ignores the prompt in "
    "these steps. With 1, the sampler uses the prompt, but guidance does not strengthen the prompt's effect. Negative "
    "values from −1 to −9 (opposite guidance) push the image away from the prompt. The image then leaves the basin "
    "sooner than with 0 or 1, so that in dynamic mode the sampler's cfg applies sooner.",
    "start_percent": "When guidance (CFG) starts: 0 is the model's highest noise level, and 1 is the end of sampling. "
    "Static: guidance starts exactly at this value. Dynamic: guidance starts at this value at the latest. Higher: "
    "gives fewer copies, but guidance has fewer steps to make the image follow the prompt.",
    "preset": "Custom: uses the values that you set on this node. Type them in, or take them from Calibrate "
    "Thresholds. Every other choice sets all values to those of a paper, or of the code that its authors released. To "
    "repeat a paper's experiments, use a Stable Diffusion model.",
    "metric": "How images are compared. latent: compares latents. This metric is fast, needs `vae`, and finds copies "
    "that have the same composition as the reference. descriptor: uses the network that you connect to the input "
    "`descriptor`. This metric also finds copies that are moved, cropped or recoloured. nL2: compares pixels. An image "
    "counts as close to its nearest reference if this reference is much nearer to the image than the 50 nearest "
    "references are on average. nL2 needs a set of more than 50 references.",
    "vae": "The VAE of the model that will sample. The latent metric needs it.",
}


def node(*, search_aliases: list[str], **parts: Any) -> io.Schema:
    """A node's schema, with words that find it in the search of hosts that know such words; others do not read them."""
    made = io.Schema(**parts)
    made.search_aliases = search_aliases
    # A patch shows what the sampler does with it. The host would share one patched model between equal nodes (it looks
    # for the hidden id as the old API writes it), so that the view of one of them would appear on the other.
    made.not_idempotent = any(output.io_type in ("MODEL", "GUIDER") for output in parts["outputs"])
    return made


def advanced(*inputs: io.Input) -> list[io.Input]:
    """The inputs, folded away until they are asked for, in hosts that can do that; others show them as before."""
    for given in inputs:
        given.advanced = True
    return list(inputs)


def with_tooltips(tooltips: dict[str, str], *inputs: io.Input) -> list[io.Input]:
    """The inputs with these tooltips, by id; an input that is not among them keeps its own."""
    for given in inputs:
        given.tooltip = tooltips.get(given.id, given.tooltip)
    return list(inputs)


def number(
    name: str, default: float, limits: tuple[float, float, float], *, optional: bool = False, finer: bool = False
) -> io.Float.Input:
    """A FLOAT with `limits` (lowest, highest, step). If it is `finer`, the page keeps values between the steps."""
    low, high, step = limits
    rounding = False if finer else None
    return io.Float.Input(name, default=default, min=low, max=high, step=step, round=rounding, optional=optional)


def seed_input(name: str, tooltip: str | None = None, *, control: bool = True) -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=2**64 - 1, control_after_generate=control, tooltip=tooltip)


def null_input() -> io.Conditioning.Input:
    return io.Conditioning.Input("null", optional=True, tooltip=TOOLTIPS["null"])


def cfg_input() -> io.Float.Input:
    return io.Float.Input("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip=TOOLTIPS["cfg"])


def rule_inputs() -> list[io.Input]:
    """rule, drop_ratio and memorized_threshold, of the nodes that look for the escape."""
    return with_tooltips(
        TOOLTIPS,
        *advanced(
            io.Combo.Input("rule", options=list(RULES), default="sharp drop"),
            number("drop_ratio", 0.5, (0.01, 1.0, 0.01)),
        ),
        number("memorized_threshold", 0.02, (0.0, 10.0, 0.001), finer=True),
    )


def mode_inputs() -> list[io.Input]:
    """mode, pre_escape_cfg, start_percent and the rule's three, of the nodes that defer CFG."""
    return with_tooltips(
        TOOLTIPS,
        io.Combo.Input("mode", options=list(MODES), default="dynamic"),
        number("pre_escape_cfg", 0.0, (-30.0, 30.0, 0.1)),
        number("start_percent", 0.5, (0.0, 1.0, 0.01)),
        *rule_inputs(),
    )


def preset_input(table: Mapping[str, published.Settings]) -> io.Combo.Input:
    """`preset`, of the nodes that can be set as in a paper."""
    options = [published.CUSTOM, *table]
    return io.Combo.Input(
        "preset", options=options, default=published.CUSTOM, optional=True, tooltip=TOOLTIPS["preset"]
    )


def curve_input() -> io.Input:
    return Curve.Input("curve", optional=True, tooltip=TOOLTIPS["curve"])


def metric_inputs() -> list[io.Input]:
    """metric, vae and descriptor, of the nodes that make references of images."""
    return with_tooltips(
        TOOLTIPS,
        io.Combo.Input("metric", options=list(METRICS), default="latent"),
        io.Vae.Input("vae", optional=True),
        descriptor_input("Needed for the descriptor metric: connect Load Copy Detector (SSCD) or Load CLIP Vision."),
    )


def descriptor_input(tooltip: str) -> io.MultiType.Input:
    """`descriptor`: takes a copy detector, or the host's CLIP_VISION as it is."""
    return io.MultiType.Input("descriptor", [Descriptor, io.ClipVision], optional=True, tooltip=tooltip)


# What the page hides: it shows an input only while the chosen value uses it. tools/assets/node_facts.py checks these
# names against every schema and writes them into web/node_facts.mjs.
PRESETS = (published.NOISE, published.SAMPLING, published.GUIDANCE)
TARGET, SIZE = ["target_magnitude", "target_units"], ["width", "height"]
USED_WITH: dict[str, dict[str, list[str]]] = {
    "method": {
        "per-sample": [
            *TARGET,
            "learning_rate",
            "weight_decay",
            "max_iterations",
            "constraint",
            "checkpointing",
            "memorized_threshold",
        ],
        "batch-wise": ["adjustment_strength", "sharpness_radius", "adjustments"],
        "search": [*TARGET, "candidates", "memorized_threshold"],
    },
    "mode": {
        "dynamic": ["pre_escape_cfg", "start_percent", "rule", "drop_ratio", "memorized_threshold"],
        "static": ["pre_escape_cfg", "start_percent"],
        "off": [],
    },
    "rule": {"sharp drop": ["drop_ratio"], "local minimum": []},
    "threshold_schedule": {"parabolic": ["threshold_max"], "exponential": ["threshold_max"], "constant": []},
    # also for nodes behind the one that has it: Copy Check has a threshold for each metric of its references
    "metric": {
        "latent": [*SIZE, "latent_threshold"],
        "nL2": [*SIZE, "nl2_threshold"],
        "descriptor": ["threshold", "draw_matches"],
    },
    "preset": {
        published.CUSTOM: list(dict.fromkeys(name for table in PRESETS for name in published.inputs_set_by(table))),
        **{name: [] for table in PRESETS for name in table},
    },
}
REPLACED_BY = {"size_of": SIZE}  # a connected input -> the inputs that it stands in for
