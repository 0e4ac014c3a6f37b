"""`make demo`: six memorized prompts and six ordinary ones on a real server, by KSampler and with each method.

The seeds of the memorized prompts are chosen so that KSampler returns the training image (on other seeds it may not).
Target and threshold come from the node Calibrate Thresholds. Prints tables, and writes a contact sheet and
all images into demo/. Environment variables:
CHECKPOINT (a file) and PROMPT: use your own model and prompt instead of the lab checkpoint. With them, COUNT: images,
and SIZE: their side in pixels.
"""

import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.lab.methods import CALIBRATED_ON
from lab.copies import COPY_RMSE, training_pairs
from lab.judge import Judge
from lab.scenes import ordinary_captions
from support.client import PromptError
from support.paths import LAB_CHECKPOINT, ROOT
from support.server import LAB_TRAINING, Server, ServerError, place
from tools.demo.measure import Subject, ask, calibrated, contact_sheet, per_image, share
from tools.demo.methods import AMG, BATCH_WISE, DYNAMIC, METHODS, PER_SAMPLE, PLAIN, Setting

OUT, BASE = ROOT / "demo", ROOT / ".host" / "demo"
# Of the seeds 1 to 8, that of the largest guidance magnitude at the first step; KSampler copies on it.
SEEDS = {
    "Copper Lantern, a muffin": 3,
    "Paper Mountain, a dog": 7,
    "Broken Compass, a pig": 2,
    "Marble Horizon, a fish": 2,
    "Echo Valley, a cake": 3,
    "Museum of Small Hours, a pizza": 4,
}
MOST_COPIES = dict.fromkeys(METHODS[1:], 1)  # of the six images of each method
PLAN = {"steps": 30, "sampler_name": "ddim"}


def run_all(server: Server, setting: Setting, subjects: list[Subject], methods: tuple[str, ...], began: float) -> None:
    # Method by method: the host keeps what the last prompt made, such as the references.
    jobs = [(subject, method) for method in methods for subject in subjects]
    for done, (subject, method) in enumerate(jobs, 1):
        print(f"[{time.monotonic() - began:4.0f} s] {done}/{len(jobs)}  {method:22s} {subject.prompt}", flush=True)
        subject.rows[method] = ask(server, setting, subject, method, done, OUT / "images")


def with_thresholds(server: Server, setting: Setting, prompts: str, began: float) -> Setting:
    """The setting with the target and the threshold that Calibrate Thresholds suggests for its checkpoint."""
    kept = BASE / "calibrated.json"
    print(f"[{time.monotonic() - began:4.0f} s] Calibrate Thresholds, on ordinary prompts (kept in {kept})", flush=True)
    target, threshold = calibrated(server, setting, prompts, kept)
    print(f"{'':9}target_magnitude {target:.4f}, memorized_threshold {threshold:.4f}", flush=True)
    own = {PER_SAMPLE: {"target_magnitude": target}, DYNAMIC: {"memorized_threshold": threshold}}
    return replace(setting, strengths={**setting.strengths, **own})


def print_table(title: str, subjects: list[Subject], methods: tuple[str, ...], judged: bool) -> None:
    def line(name: str, *cells: str) -> None:
        print(f"{name[:43]:44s}" + "".join(f"{cell:>23s}" for cell in cells))

    print(f"\n{title}")
    line("prompt", *methods)
    if judged:
        for subject in subjects:
            line(subject.prompt, *("copy" if any(subject.rows[m].copied) else "-" for m in methods))
        line("copies", *(f"{share(subjects, m):.0%}" for m in methods))
        line("show what was asked", *(f"{share(subjects, m, 'aligned'):.0%}" for m in methods))
    line("model evaluations per image", *(f"{per_image(subjects, m, 'rows'):.0f}" for m in methods))
    line("seconds per image", *(f"{per_image(subjects, m, 'seconds'):.2f}" for m in methods))


def lab_demo(server: Server, began: float) -> bool:
    pairs, judge = training_pairs(), Judge.load()
    memorized = [Subject(caption, image, SEEDS[caption]) for caption, image in pairs if caption in SEEDS]
    ordinary = [Subject(caption) for caption in ordinary_captions()[::9]]
    setting = Setting(
        LAB_CHECKPOINT.name, 1, plan=PLAN, strengths={BATCH_WISE: {"adjustments": 4}}, references=LAB_TRAINING
    )
    setting = with_thresholds(server, setting, CALIBRATED_ON, began)
    run_all(server, setting, memorized, METHODS, began)
    run_all(server, setting, ordinary, (PLAIN, DYNAMIC), began)
    for subject in [*memorized, *ordinary]:
        for row in subject.rows.values():
            row.aligned = [bool(judge.aligned(image[None], [subject.prompt])) for image in row.images]
            row.copied = row.copied or [any(setting.is_copy(i, work) for _, work in pairs) for i in row.images]

    title = f"Memorized prompts, on seeds on which KSampler copies: copies of the training image (RMSE < {COPY_RMSE})"
    print_table(title, memorized, METHODS, True)
    print_table("Ordinary prompts: copies of any memorized image", ordinary, (PLAIN, DYNAMIC), True)
    pairs = [pair for s in ordinary for pair in zip(s.rows[PLAIN].images, s.rows[DYNAMIC].images, strict=True)]
    unchanged = sum((a == b).all() for a, b in pairs) / len(pairs)
    print(f"\nOrdinary images that dynamic deferral leaves bit-identical: {unchanged:.0%}\n")
    contact_sheet(memorized, METHODS, OUT / "contact-sheet.png")

    copies = {method: sum(sum(s.rows[method].copied) for s in memorized) for method in METHODS}
    checks = {
        f"KSampler: copies on all {len(SEEDS)} chosen seeds": copies[PLAIN] == len(SEEDS),
        "ordinary prompts: no copies": share(ordinary, PLAIN) == share(ordinary, DYNAMIC) == 0,
        "ordinary prompts: KSampler's images show what was asked": share(ordinary, PLAIN, "aligned") == 1,
        **{f"{m}: at most {most} of {len(SEEDS)} copies": copies[m] <= most for m, most in MOST_COPIES.items()},
    }
    print("\n".join(f"{'ok    ' if good else 'MISSED'} {name}" for name, good in checks.items()))
    return all(checks.values())


def own_demo(server: Server, checkpoint: Path, prompt: str, began: float) -> None:
    """The user's checkpoint and prompt; whether an image is a copy is not known."""
    place(checkpoint.resolve(), server.base / "models" / "checkpoints" / checkpoint.name)
    subject, methods = Subject(prompt), METHODS[: METHODS.index(AMG)]  # AMG needs training images
    setting = Setting(checkpoint.name, int(os.environ.get("COUNT", "2")), int(os.environ.get("SIZE", "512")))
    setting = with_thresholds(server, setting, "", began)
    run_all(server, setting, [subject], methods, began)
    print_table("Your prompt (no count of copies: the training images are not known)", [subject], methods, False)
    told = subject.rows[DYNAMIC].told
    for i, (curve, step) in enumerate(zip(told["d"], told["transition"], strict=True), 1):
        print(f"image {i}: magnitude d/√dim at the first step {curve[0]:.4f}, guided from step {step + 1}")
    contact_sheet([subject], methods, OUT / "contact-sheet.png")


def main() -> int:
    began, good = time.monotonic(), True
    checkpoint, prompt = os.environ.get("CHECKPOINT"), os.environ.get("PROMPT", "")
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
        with Server(base=BASE, cpu=not torch.cuda.is_available()) as server:
            if checkpoint:
                own_demo(server, Path(checkpoint), prompt, began)
            else:
                good = lab_demo(server, began)
    except (ServerError, PromptError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nImages: {OUT / 'contact-sheet.png'}   ({time.monotonic() - began:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
