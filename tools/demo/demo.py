"""`make demo`: memorized and ordinary prompts on a real server, without mitigation and with each method.

Prints a table, and writes a contact sheet, the escape curves and all images into demo/. Environment variables:
CHECKPOINT (a file) and PROMPT: use your own model and prompt instead of the lab checkpoint.
COUNT: images per prompt. SIZE: their side in pixels (your own model only). MEMORIZED: how many of the 16 memorized
prompts to run.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from lab import scenes
from lab.copies import COPY_RMSE, is_copy, training_pairs
from support.client import PromptError
from support.paths import ROOT
from support.server import Server, ServerError, place
from tools.demo.images import contact_sheet, escape_curves
from tools.demo.measure import Subject, ask, first_magnitude, identical, per_image, share_of_copies
from tools.demo.methods import METHODS, WITHOUT_CFG, Setting

OUT = ROOT / "demo"
PLAIN, DYNAMIC = "no mitigation", "dynamic deferral"
LEAST_PLAIN, MOST_MITIGATED, MOST_WITHOUT_CFG = 0.80, 0.10, 0.05  # shares of copies that the lab checkpoint must keep


def run_all(server: Server, setting: Setting, subjects: list[Subject], methods: tuple[str, ...], began: float) -> None:
    jobs = [(subject, method) for subject in subjects for method in methods]
    for done, (subject, method) in enumerate(jobs, 1):
        print(f"[{time.monotonic() - began:4.0f} s] {done}/{len(jobs)}  {method:22s} {subject.prompt}", flush=True)
        subject.rows[method] = ask(server, setting, subject, method, done, OUT / "images")


def print_table(title: str, subjects: list[Subject], methods: tuple[str, ...], count_copies: bool = True) -> None:
    """Copies per prompt and method, and what each method cost."""

    def line(name: str, *cells: str) -> None:
        print(f"{name[:43]:44s}" + "".join(f"{cell:>23s}" for cell in cells))

    print(f"\n{title}")
    line("prompt", *methods)
    if count_copies:
        for subject in subjects:
            rows = [subject.rows[method] for method in methods]
            line(subject.prompt, *(f"{row.copies} of {len(row.images)} copies" for row in rows))
        line("copies", *(f"{share_of_copies(s.rows[m] for s in subjects):.1%}" for m in methods))
    line("model evaluations per image", *(f"{per_image(subjects, m, 'rows'):.0f}" for m in methods))
    line("seconds per image", *(f"{per_image(subjects, m, 'seconds'):.2f}" for m in methods))


def lab_demo(server: Server, count: int, began: float) -> bool:
    """The lab checkpoint; whether it shows what it should."""
    pairs = training_pairs()
    memorized = [Subject(caption, image) for caption, image in pairs[: int(os.environ.get("MEMORIZED", "12"))]]
    ordinary = [Subject(prompt) for prompt in scenes.ordinary_prompts()[::2]]
    run_all(server, Setting.for_lab(count), memorized, METHODS, began)
    run_all(server, Setting.for_lab(1), ordinary, (PLAIN, DYNAMIC), began)
    for row in (row for subject in ordinary for row in subject.rows.values()):
        row.copies = sum(any(is_copy(image, training) for _, training in pairs) for image in row.images)
    quarter = [ask(server, Setting.for_lab(count), s, WITHOUT_CFG, i) for i, s in enumerate(memorized[::4])]

    print_table(f"Memorized prompts: copies of their training image (RMSE < {COPY_RMSE})", memorized, METHODS)
    print_table("Ordinary prompts: copies of any memorized image", ordinary, (PLAIN, DYNAMIC))
    without_cfg = share_of_copies(quarter)
    d_memorized, d_ordinary = first_magnitude(memorized), first_magnitude(ordinary)
    print(
        f"\nMemorized prompts without CFG: {without_cfg:.1%} copies\n"
        f"Magnitude d/√dim at the first step, median: memorized {d_memorized:.4f}, ordinary {d_ordinary:.4f}, "
        f"ratio {d_memorized / d_ordinary:.1f}\n"
        f"Ordinary images that dynamic deferral leaves bit-identical: {identical(ordinary, PLAIN, DYNAMIC):.0%}\n"
    )
    contact_sheet(memorized, METHODS, OUT / "contact-sheet.png")
    contact_sheet(memorized[:6], METHODS, OUT / "contact-sheet-small.png")
    escape_curves(memorized, ordinary, OUT / "escape-curves.png")

    share = {m: share_of_copies(s.rows[m] for s in memorized) for m in METHODS}
    checks = {
        f"no mitigation: at least {LEAST_PLAIN:.0%} copies": share.pop(PLAIN) >= LEAST_PLAIN,
        f"without CFG: at most {MOST_WITHOUT_CFG:.0%} copies": without_cfg <= MOST_WITHOUT_CFG,
        "ordinary prompts: no copies": share_of_copies(s.rows[PLAIN] for s in ordinary) == 0,
        "memorized prompts pull at least 4 times as hard as ordinary ones": d_memorized >= 4 * d_ordinary,
        **{f"{m}: at most {MOST_MITIGATED:.0%} copies": copies <= MOST_MITIGATED for m, copies in share.items()},
    }
    print("\n".join(f"{'ok    ' if good else 'MISSED'} {name}" for name, good in checks.items()))
    return all(checks.values())


def own_demo(server: Server, checkpoint: Path, prompt: str, count: int, began: float) -> None:
    """The user's checkpoint and prompt; whether an image is a copy is not known."""
    place(checkpoint.resolve(), server.base / "models" / "checkpoints" / checkpoint.name)
    subject = Subject(prompt)
    setting = Setting(checkpoint.name, count, int(os.environ.get("SIZE", "512")))
    run_all(server, setting, [subject], METHODS, began)
    print_table("Your prompt (no count of copies: the training images are not known)", [subject], METHODS, False)
    told = subject.rows[DYNAMIC].told
    for i, (curve, step) in enumerate(zip(told["d"], told["transition"], strict=True), 1):
        print(f"image {i}: magnitude d/√dim at the first step {curve[0]:.4f}, guided from step {step}")
    contact_sheet([subject], METHODS, OUT / "contact-sheet.png")
    escape_curves([subject], [], OUT / "escape-curves.png")


def main() -> int:
    began, good = time.monotonic(), True
    checkpoint, prompt = os.environ.get("CHECKPOINT"), os.environ.get("PROMPT", "")
    count = int(os.environ.get("COUNT", "2"))
    if checkpoint and not Path(checkpoint).is_file():
        print(f"CHECKPOINT={checkpoint} is not a file: give the path of a .safetensors checkpoint.", file=sys.stderr)
        return 2
    if checkpoint and not prompt:
        print("CHECKPOINT is set but PROMPT is not: set PROMPT='...' to the text to sample.", file=sys.stderr)
        return 2
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    print("Starting ComfyUI ...", flush=True)
    try:
        with Server(base=ROOT / ".host" / "demo") as server:
            if checkpoint:
                own_demo(server, Path(checkpoint), prompt, count, began)
            else:
                good = lab_demo(server, count, began)
    except (ServerError, PromptError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nImages: {OUT / 'contact-sheet.png'}, {OUT / 'escape-curves.png'}   ({time.monotonic() - began:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
