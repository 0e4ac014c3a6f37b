"""What a soak test found, as docs/soak.md and for the console."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING, Any

from support.server import ROOT

if TYPE_CHECKING:
    from tools.soak import Soak

MIB = 2**20
WARM, WINDOW = 20, 12  # runs before the first window; a window is one round of the workflows
BAR = 0.03
COLUMNS = {
    "rss": "memory (RSS), MiB",
    "tensors": "live tensors",
    "bytes": "their MiB",
    "patchers": "ModelPatchers",
    "objects": "Python objects",
}


def growth(soak: Soak) -> tuple[float, float, float]:
    """Median RSS in MiB after the warm-up and at the end, and their ratio − 1."""
    first, last = median(soak.rss[WARM : WARM + WINDOW]) / MIB, median(soak.rss[-WINDOW:]) / MIB
    return first, last, last / first - 1


def facts(soak: Soak) -> list[tuple[str, str]]:
    """(what, how many) of a soak, in words."""
    c = soak.count
    rows = [
        ("runs of a workflow", f"{c['runs']}"),
        ("… undisturbed", f"{c['undisturbed']}"),
        ("… interrupted at a random moment", f"{c['interrupted']}"),
        ("… interrupted too late: they had ended", f"{c['interrupted too late']}"),
    ]
    for kind in ("RuntimeError", "out of memory", "NaN"):
        rows.append((f"… failed by an injected fault, {kind}", f"{c[f'failed by {kind}']}"))
    rows += [
        ("… went on after a NaN, as KSampler does", f"{c['went on after NaN']}"),
        (
            "… went on in smaller batches, to the same latents but for rounding (10⁻³)",
            f"{c['went on after out of memory']}",
        ),
        ("crashes of the server", "0"),  # a crash ends the soak with an exception, and there is no page
        ("KSampler afterwards, without the pack: bit-identical", f"{c['vanilla, identical']} of {c['vanilla']}"),
        ("the disturbed workflow again: bit-identical", f"{c['queued again, identical']} of {c['queued again']}"),
        ("… of these on results that the host had kept", f"{c['queued again, on cached results']}"),
        ("undisturbed, in a later round: bit-identical", f"{c['repeated, identical']} of {c['repeated']}"),
        ("anything else that was not as expected", f"{len(soak.wrong)}"),
    ]
    if len(soak.rss) >= WARM + 2 * WINDOW:
        first, last, ratio = growth(soak)
        verdict = "within" if abs(ratio) <= BAR else "NOT within"
        after, end = f"runs {WARM + 1}–{WARM + WINDOW}", f"the last {WINDOW}"
        rows.append(
            (
                f"memory, median of {after} → of {end}",
                f"{first:.0f} → {last:.0f} MiB, {100 * ratio:+.1f} %, {verdict} {100 * BAR:.0f} %",
            )
        )
    trimmed = soak.curve[-1].get("trimmed") if soak.curve else None
    if trimmed:
        rows.append(("memory at the end, once malloc has given back what it kept", f"{trimmed / MIB:.0f} MiB"))
    return rows


def console(soak: Soak, control: Soak | None) -> str:
    lines = [f"{what:66s} {value}" for what, value in facts(soak)]
    if control:
        lines += ["", "KSampler alone, disturbed in the same way", *(f"{a:66s} {b}" for a, b in facts(control))]
    return "\n".join(["", *lines, "", *(f"WRONG {line}" for line in soak.wrong)])


def _point(what: str, point: dict[str, Any]) -> str:
    told = [f"{point[k] / MIB:.1f}" if k in ("rss", "bytes") else f"{point[k]:,}" for k in COLUMNS]
    return f"| {what}{point['runs']} | {' | '.join(told)} |"


def page(soak: Soak, control: Soak | None) -> str:
    version = json.loads((ROOT / ".host" / "host.json").read_text(encoding="utf-8"))["version"]
    beside = dict(facts(control)) if control else {}
    table = ["| | with the pack | KSampler alone |", "|---|---|---|"]
    table += [f"| {what} | {value} | {beside.get(what, '')} |" for what, value in facts(soak)]
    curve = [f"| after run | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
    curve += [_point("", point) for point in soak.curve if "trimmed" not in point]
    curve += [_point("KSampler alone, ", p) for p in (control.curve if control else []) if "trimmed" not in p]
    wrong = ["", "Not as expected:", "", *(f"- {line}" for line in soak.wrong)] if soak.wrong else []
    names = "; ".join(soak.names)
    return "\n".join(
        [
            "# A hundred runs on one server",
            "",
            f"`make soak` printed this page: one ComfyUI {version} on the CPU, seed {soak.seed}. The lab checkpoint at "
            f"64×64, two pictures a run, {len(soak.names)} workflows in turn, with every node of the pack: "
            f"{names}.",
            "",
            "The first round is undisturbed. Then each run is interrupted at a random moment (`POST /interrupt`), or a "
            "random call of the model raises `RuntimeError`, raises `torch.OutOfMemoryError` or returns NaN, or (three "
            "in ten) nothing happens. After every disturbed one the same workflow runs again, half of them from what "
            "the host's cache had kept, and the host's KSampler runs on the same loaded checkpoint without the pack. "
            "The latents of both are compared, bit for bit, with those of the undisturbed server; the server's record "
            "tells that KSampler was not taken from its cache. All models are unloaded after every 25th run.",
            "",
            *table,
            *wrong,
            "",
            "## What stays in memory",
            "",
            "After a garbage collection and an emptied history (the host keeps all prompts it has run), in the "
            "server's process. A leak would show as tensors, their bytes or model patchers that grow.",
            "",
            *curve,
            "",
        ]
    )
