"""`python -m benchmarks.exact`: each method's settings on the exact model, chosen on some noises, judged on others.

The exact model (tests/support/lab_pack/exact.py) knows when a sample is inside the basin, and nearly every noise copies
without mitigation. The better of two settings on the first noises need not be the better one on the second: a setting
is only as good as on the noises that did not choose it.
"""

import argparse
import logging
import sys
from collections.abc import Iterator

from support.graphs import Node, Prompt, deferred, ksampler, lab, optimizer
from support.graphs.words import Host
from support.in_process import lab_host
from support.paths import ROOT

from .scores import Column, Row, put, table

KINDS = ("eps", "v", "flow")  # what the model predicts
SEEDS = (11, 12)  # of the noises that choose, and of the others
TITLES = {"chosen": "copies, first noises", "held_out": "copies, others", "late": "steps without CFG"}


def methods() -> Iterator[tuple[str, Prompt]]:
    """Name and nodes; node `s` samples, node `n` makes noise."""
    yield "no mitigation", {"s": ksampler()}
    for ratio in (0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
        yield f"dynamic, drop {ratio:g}", {"s": deferred(drop_ratio=ratio)}
    for cfg in (1.0, -1.0, -3.0):
        yield f"dynamic, drop 0.5, g₀ {cfg:g}", {"s": deferred(pre_escape_cfg=cfg)}
    yield "dynamic, local minimum", {"s": deferred(rule="local minimum")}
    for percent in (0.1, 0.2, 0.3, 0.4):
        yield f"static, from {percent:.0%}", {"s": deferred("static", start_percent=percent)}
    for target in (0.03, 0.02, 0.01):
        noise = optimizer(target_magnitude=target)
        yield f"per-sample, to {target:g}", {"n": noise, "s": deferred("off", noise=["n", 0])}
    noise = optimizer("search", candidates=16)
    yield "search over 16 seeds", {"n": noise, "s": deferred("off", noise=["n", 0])}
    noise = optimizer("batch-wise")
    yield "batch-wise, then dynamic", {"n": noise, "s": deferred(noise=["n", 0])}


def measure(host: Host, kind: str, nodes: Prompt, count: int) -> Row:
    """Copies on each half of the noises, and the share of steps without guidance, by column."""
    from support.lab_pack.exact import is_copy

    found, late = [], []
    for seed in SEEDS:
        own: dict[str, Node] = {k: {**n, "inputs": {**n["inputs"], **_seeded(n, seed)}} for k, n in nodes.items()}
        if "n" in own:
            own["sigmas"] = {
                "class_type": "BasicScheduler",
                "inputs": {"model": ["lab", 0], "scheduler": "normal", "steps": 50, "denoise": 1.0},
            }
            own["n"]["inputs"]["sigmas"] = ["sigmas", 0]
        out = host.run({"lab": lab(count, kind), **own})
        found.append(float(is_copy(out["s"][0]).float().mean()))
        if len(out["s"]) > 1:
            curve = out["s"][1]
            late.append(float(curve.transition.float().mean()) / curve.steps)
    values = {"chosen": found[0], "held_out": found[1], "late": sum(late) / 2 if late else None}
    return {f"{kind} {name}": value for name, value in values.items()}


def _seeded(node: Node, seed: int) -> dict[str, int]:
    return {name: seed for name in ("seed", "noise_seed") if name in node["inputs"]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact", description=__doc__.splitlines()[0])
    parser.add_argument("--noises", type=int, default=128, help="of each half: %(default)s")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, help="what the model predicts")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/escape.md, too")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    rows: list[Row] = []
    with lab_host() as host:
        for name, nodes in methods():
            found = [measure(host, kind, nodes, asked.noises) for kind in asked.kinds]
            rows.append({"method": name} | {k: v for part in found for k, v in part.items()})
            print(rows[-1], flush=True)
    places = {"chosen": 1, "held_out": 1, "late": 0}
    every = [(kind, key) for kind in asked.kinds for key in TITLES]
    shown = [Column(f"{kind} {key}", f"{kind}: {TITLES[key]}", places[key], "%") for kind, key in every]
    text = table(rows, [Column("method", "method"), *shown])
    print(text)
    if asked.docs:
        put(ROOT / "docs" / "escape.md", "exact", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
