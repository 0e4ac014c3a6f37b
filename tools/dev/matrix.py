"""`make matrix`: every node on every model family, at every precision. Prints the table and writes docs/matrix.md.

The models are tiny, of the host's real families, with random weights (tests/host/families): what is asked is that a
node runs, stays finite, changes nothing at a strength of zero and leaves the weights alone. Ends with 1 if a cell
fails. `--fast` is what CI runs; `--cuda` runs on the first GPU (see tools/gpu_check.py).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import time

import torch

from support.in_process import lab_host
from support.paths import ROOT

PAGE = ROOT / "docs" / "matrix.md"
MARK = {"pass": "✓", "refused": "refused", "not here": "–", "FAIL": "FAIL"}
INTRO = """# What was tried, on what

Every node on every family of models, at several precisions, by `make matrix`. The models are tiny ones of the host's
own architectures with random weights, so this says that a node runs there, not how well it works: that is on
[bench.md](bench.md). A ✓ means: it ran and stayed finite; with a strength of zero (mode `off`, a start at 0, no
iterations, scales of 0) the latents are bit-identical to KSampler's; with a strength it did something; and the weights
afterwards are the same bytes. The other nodes (references, Copy Check, the plot) work on pictures and see no model:
AMG's columns make their sets from latents. "refused" means one clear sentence instead of a result, "–" that it cannot
be tried there; the reasons are below the table.
"""


def rows(made, fast: bool = False):
    """(family, what the weights are and are computed in, cells) of every row that is asked for."""
    from support.families import FAST, built, cells, files, kinds, states

    families = [*files.FAMILIES, *built.FAMILIES]
    # A patch on the sampling is the same in every precision: two will do.
    wanted = [(f, p) for f in families for p in kinds.PRECISIONS.values() if not f.patch or p.name in ("fp32", "bf16")]
    wanted += [(files.SD1, p) for p in states.STATES.values()]
    for family, precision in wanted:
        if fast and (family.name, precision.name) not in FAST:
            continue
        with contextlib.redirect_stderr(io.StringIO()):  # the host's progress bars
            yield family, precision.name, cells.row(made, family, precision)
    if not (fast or torch.cuda.is_available()):
        for name in states.ON_A_GPU:
            yield files.SD1, name, dict.fromkeys(cells.NODES, states.NO_GPU)


def page(found: list[tuple], where: str, seconds: float) -> str:
    """The table as Markdown, its reasons as numbered notes."""
    notes: list[str] = []

    def shown(cell) -> str:
        if not cell.said:
            return MARK[cell.outcome]
        if cell.said not in notes:
            notes.append(cell.said)
        return f"{MARK[cell.outcome]} ({notes.index(cell.said) + 1})"

    names = list(found[0][2])
    lines = [["family", "loaded by", "precision", *names]]
    lines += [[f.name, f.origin, p, *(shown(c[n]) for n in names)] for f, p, c in found]
    assert all(all(line) for line in lines), "a blank cell"
    table = ["| " + " | ".join(line) + " |" for line in lines]
    table.insert(1, "|" + "---|" * len(lines[0]))
    said = [f"{i}. {note}" for i, note in enumerate(notes, 1)]
    cells = [c for _, _, row in found for c in row.values()]
    count = ", ".join(f"{sum(c.outcome == o for c in cells)} {o}" for o in MARK)
    foot = f"{len(cells)} cells: {count}. {where}."
    return "\n".join([INTRO, *table, "", *said, "", foot, "", PRECISIONS])


PRECISIONS = """Precisions: fp32, fp16 and bf16 are the type of the weights and of the computation, but for fp16
checkpoint files, which the host computes in what it prefers on the device (fp32 on a CPU); fp8 is the storage of the
weights (e4m3fn), cast by the host for each use. The last rows are what a host does to a loaded model: LoRA, memory
saving modes with the LoRA applied at each use, another place of computation, compilation (back end `eager`), layout.
Quantized weights (scaled fp8, the host's quantized tensors, int8) are in tests/host/test_bad_input.py and
test_accidents.py: per-sample and "through model" refuse them, all else works.
"""


def run(fast: bool, cuda: bool) -> tuple[list[tuple], float]:
    logging.disable(logging.CRITICAL)
    began, found = time.monotonic(), []
    with lab_host(f"{'' if cuda else '--cpu'} --use-pytorch-cross-attention") as made:
        for family, precision, cells in rows(made, fast):
            found.append((family, precision, cells))
            bad = [f"{n}: {c}" for n, c in cells.items() if c.outcome != "pass"]
            passed = len(cells) - len(bad)
            print(f"[{time.monotonic() - began:4.0f} s] {family.name}, {precision}: {passed} pass", *bad, sep="\n    ")
    return found, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="the part that CI runs; writes no page")
    options = parser.parse_args()
    found, seconds = run(options.fast, cuda=False)
    text = page(found, f"ComfyUI of this machine's host on the CPU, torch {torch.__version__}", seconds)
    print(f"\n{text}\n{seconds:.0f} s")
    if not options.fast:
        PAGE.write_text(text, encoding="utf-8")
    return int(any(c.outcome == "FAIL" for _, _, cells in found for c in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
