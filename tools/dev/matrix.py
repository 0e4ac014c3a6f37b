"""`make matrix`: every node on every model family, at every precision. Puts the table into docs/matrix.md."""

import contextlib
import io
import logging
import sys
import time

import torch

from benchmarks import scores
from support.in_process import lab_host
from support.paths import ROOT

PAGE = ROOT / "docs" / "matrix.md"
MARK = {"pass": "✓", "refused": "refused", "not here": "–", "FAIL": "FAIL"}


def wanted() -> list[tuple]:
    from support.families import files, kinds

    families = [*files.FAMILIES, *files.BUILT]
    # A patch on the sampling acts the same in every precision, so two precisions are enough for those families.
    rows = [(f, p) for f in families for p in kinds.PRECISIONS.values() if not f.patch or p.name in ("fp32", "bf16")]
    return rows + [(files.SD1, p) for p in kinds.STATES.values()]


def all_cells(found: list[tuple]) -> list:
    return [cell for _, _, row in found for cell in row.values()]


def table(found: list[tuple]) -> str:
    reasons: list[str] = []

    def shown(cell) -> str:
        if not cell.said:
            return MARK[cell.outcome]
        if cell.said not in reasons:
            reasons.append(cell.said)
        return f"{MARK[cell.outcome]} ({reasons.index(cell.said) + 1})"

    rows = [
        {
            "family": family.name,
            "loaded by": family.origin,
            "precision": p,
            **{n: shown(cell) for n, cell in row.items()},
        }
        for family, p, row in found
    ]
    assert all(all(row.values()) for row in rows), "a blank cell"
    cells = all_cells(found)
    count = ", ".join(f"{sum(cell.outcome == outcome for cell in cells)} {outcome}" for outcome in MARK)
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    text = scores.table(rows, [scores.Column(name, name) for name in rows[0]])
    return "\n".join([text, "", *notes, "", f"{len(cells)} cells: {count}."])


def say(began: float, family: str, precision: str, cells: dict) -> None:
    bad = [f"{name}: {cell}" for name, cell in cells.items() if cell.outcome != "pass"]
    passed = f"{family}, {precision}: {len(cells) - len(bad)} pass"
    print(f"[{time.monotonic() - began:4.0f} s] {passed}", *bad, sep="\n    ", flush=True)


def main() -> int:
    logging.disable(logging.CRITICAL)
    began, found = time.monotonic(), []
    with lab_host("--cpu --use-pytorch-cross-attention") as host:
        from support.families import cells

        for family, precision in wanted():
            with contextlib.redirect_stderr(io.StringIO()):  # the host's progress bars
                found.append((family, precision.name, cells.row(host, family, precision)))
            say(began, family.name, *found[-1][1:])
    text = f"{table(found)} ComfyUI on the CPU, torch {torch.__version__}."
    print(f"\n{text}\n{time.monotonic() - began:.0f} s")
    scores.put(PAGE, "matrix", text)
    return int(any(cell.outcome == "FAIL" for cell in all_cells(found)))


if __name__ == "__main__":
    sys.exit(main())
