"""`make demo`: the pack's main job on a real server, with pictures to look at.

Runs memorized and ordinary prompts through the server's HTTP API, without mitigation and with each,
prints a table, and leaves contact sheet, escape curves and all pictures in demo/. With CHECKPOINT
(a file) and PROMPT in the environment it does the same on your own model; COUNT is pictures a prompt,
SIZE their side in pixels (your own model only), MEMORIZED how many of the 16 memorized prompts.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from lab import scenes
from lab.copies import COPY_RMSE, is_copy, training_pairs
from support.client import PromptError
from support.paths import ROOT
from support.server import Server, ServerError
from tools.demo.images import contact_sheet, escape_curves
from tools.demo.methods import METHODS, Setting, graph

OUT = ROOT / "demo"
CONTROL = ("vanilla", "dynamic")  # what ordinary prompts are run with
BAR_COPIES, BAR_MITIGATED = 0.80, 0.10


@dataclass
class Row:
    """All pictures of one prompt by one method, and what they cost."""

    pictures: list[np.ndarray]
    told: dict
    copies: int = 0


@dataclass
class Subject:
    prompt: str
    training: np.ndarray | None = None  # the memorized picture, where it is known
    rows: dict[str, Row] = field(default_factory=dict)


def ask(server: Server, setting: Setting, subject: Subject, method: str, run: int, out: Path | None = None) -> Row:
    """One batch through the server; its pictures also go into the folder `out`."""
    entry = server.run(graph(setting, subject.prompt, method, run), timeout=3600)
    found = entry["outputs"]
    raw = [server.image(**ref) for ref in found["save"]["images"]]
    pictures = [np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in raw]
    row = Row(pictures, json.loads(found["tell"]["told"][0]))
    if subject.training is not None:
        row.copies = sum(is_copy(p, subject.training) for p in pictures)
    if out is not None:
        folder = out / method.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() else "_" for c in subject.prompt)[:60]
        for i, b in enumerate(raw):
            (folder / f"{name}-{i}.png").write_bytes(b)
    return row


def table(subjects: list[Subject], methods: tuple[str, ...], title: str, known: bool = True) -> dict[str, float]:
    """Print copies per prompt and method, and cost; return the share of copies per method."""
    print(f"\n{title}\n{'prompt':44s}" + "".join(f"{m:>23s}" for m in methods))
    share = {}
    for s in subjects if known else []:
        cells = [f"{s.rows[m].copies} of {len(s.rows[m].pictures)} copies" for m in methods]
        print(f"{s.prompt[:43]:44s}" + "".join(f"{c:>23s}" for c in cells))
    for name, value in (
        ("copies", lambda m: f"{100 * share[m]:.1f} %"),
        ("model evaluations a picture", lambda m: f"{_mean(subjects, m, 'rows'):.0f}"),
        ("seconds a picture", lambda m: f"{_mean(subjects, m, 'seconds'):.2f}"),
    ):
        for m in methods:
            rows = [s.rows[m] for s in subjects]
            share[m] = sum(r.copies for r in rows) / sum(len(r.pictures) for r in rows)
        if name == "copies" and not known:
            continue
        print(f"{name:44s}" + "".join(f"{value(m):>23s}" for m in methods))
    return share


def _mean(subjects: list[Subject], method: str, key: str) -> float:
    rows = [s.rows[method] for s in subjects]
    return sum(r.told[key] for r in rows) / sum(len(r.pictures) for r in rows)


def first_magnitude(subjects: list[Subject]) -> float:
    """Median relative d at the first step."""
    return float(np.median([d[0] for s in subjects for d in s.rows["dynamic"].told["d"]]))


def unchanged(subjects: list[Subject], method: str) -> float:
    """Share of pictures that are, bit for bit, what KSampler made."""
    same = [
        np.array_equal(a, b)
        for s in subjects
        for a, b in zip(s.rows["vanilla"].pictures, s.rows[method].pictures, strict=True)
    ]
    return sum(same) / len(same)


def work(server: Server, setting: Setting, subjects: list[Subject], methods: tuple[str, ...], began: float) -> None:
    total, done = len(subjects) * len(methods), 0
    for subject in subjects:
        for method in methods:
            done += 1
            print(f"[{time.monotonic() - began:4.0f} s] {done}/{total}  {method:22s} {subject.prompt}", flush=True)
            subject.rows[method] = ask(server, setting, subject, method, done, OUT / "pictures")


def lab_demo(server: Server, count: int, began: float) -> bool:
    shown = int(os.environ.get("MEMORIZED", "12"))
    memorized = [Subject(caption, picture) for caption, picture in training_pairs()[:shown]]
    nearest = [picture for _, picture in training_pairs()]
    ordinary = [Subject(prompt) for prompt in scenes.ordinary_prompts()[::2]]
    setting = Setting.for_lab(count)
    work(server, setting, memorized, METHODS, began)
    work(server, Setting.for_lab(1), ordinary, CONTROL, began)
    for subject in ordinary:
        for row in subject.rows.values():
            row.copies = sum(any(is_copy(p, t) for t in nearest) for p in row.pictures)
    share = table(memorized, METHODS, f"Memorized prompts: copies of their training picture (RMSE < {COPY_RMSE})")
    plain = table(ordinary, CONTROL, "Ordinary prompts: copies of any memorized picture")
    uncond = memorized_without_cfg(server, setting, memorized)
    d_memorized, d_ordinary = first_magnitude(memorized), first_magnitude(ordinary)
    print(
        f"\nwithout CFG: {100 * uncond:.1f} % copies of the prompt's picture\n"
        f"first-step d/√dim, median: memorized {d_memorized:.4f}, ordinary {d_ordinary:.4f}, "
        f"ratio {d_memorized / d_ordinary:.1f}\n"
        "ordinary pictures bit-identical to KSampler's with dynamic deferral: "
        f"{100 * unchanged(ordinary, 'dynamic'):.0f} %"
    )
    contact_sheet(memorized, METHODS, OUT / "contact-sheet.png")
    contact_sheet(memorized[:6], METHODS, OUT / "contact-sheet-small.png")
    escape_curves(memorized, ordinary, OUT / "escape-curves.png")
    bars = {
        f"no mitigation: at least {100 * BAR_COPIES:.0f} % copies": share["vanilla"] >= BAR_COPIES,
        "without CFG: at most 5 % copies": uncond <= 0.05,
        "ordinary prompts: no copies": plain["vanilla"] == 0,
        "first-step d of memorized prompts at least 4 times that of ordinary ones": d_memorized >= 4 * d_ordinary,
        **{f"{m}: at most 10 % copies": share[m] <= BAR_MITIGATED for m in METHODS if m != "vanilla"},
    }
    print("\n" + "\n".join(f"{'ok   ' if ok else 'SHORT'} {name}" for name, ok in bars.items()))
    return all(bars.values())


def memorized_without_cfg(server: Server, setting: Setting, memorized: list[Subject]) -> float:
    """Share of copies when the same prompts and seeds are sampled without CFG (scale 0)."""
    rows = [ask(server, setting, s, "without CFG", i) for i, s in enumerate(memorized[::4])]
    return sum(r.copies for r in rows) / sum(len(r.pictures) for r in rows)


def own_demo(server: Server, checkpoint: Path, prompt: str, count: int, began: float) -> bool:
    subject = Subject(prompt)
    work(server, Setting.for_own(checkpoint.name, count, int(os.environ.get("SIZE", "512"))), [subject], METHODS, began)
    table([subject], METHODS, "Your prompt (copies are not counted: the training pictures are not known)", known=False)
    told = subject.rows["dynamic"].told
    print(
        "first-step d/√dim: "
        + ", ".join(f"{d[0]:.4f}" for d in told["d"])
        + f"; guided from steps {told['transition']}"
    )
    contact_sheet([subject], METHODS, OUT / "contact-sheet.png")
    escape_curves([subject], [], OUT / "escape-curves.png")
    return True


def main() -> int:
    began = time.monotonic()
    own, prompt = os.environ.get("CHECKPOINT"), os.environ.get("PROMPT", "")
    count = int(os.environ.get("COUNT", "2"))
    if own and not Path(own).is_file():
        print(f"CHECKPOINT={own} is not a file: give the path of a .safetensors checkpoint.", file=sys.stderr)
        return 2
    if own and not prompt:
        print("CHECKPOINT is set but PROMPT is not: say what to draw, PROMPT='...'.", file=sys.stderr)
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    print("starting ComfyUI ...", flush=True)
    try:
        with Server(base=ROOT / ".host" / "demo") as server:
            if own:
                link = server.base / "models" / "checkpoints" / Path(own).name
                link.unlink(missing_ok=True)
                link.symlink_to(Path(own).resolve())
                good = own_demo(server, Path(own), prompt, count, began)
            else:
                good = lab_demo(server, count, began)
    except (ServerError, PromptError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\npictures: {OUT / 'contact-sheet.png'}, {OUT / 'escape-curves.png'}   ({time.monotonic() - began:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
