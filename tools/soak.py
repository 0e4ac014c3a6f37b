"""`make soak`: one server, a hundred runs with interruptions and faults, and vanilla pictures in between.

    make soak                                  # and write docs/soak.md
    .host/python tools/soak.py --runs 24 --seed 3

Every prompt goes over HTTP to a real ComfyUI on the lab checkpoint. After the first round, runs are interrupted at
a random moment, or a model call raises or returns NaN. After each disturbed run the same prompt is queued again,
with whatever the host's cache kept, and KSampler runs without the pack: both must give the very bits that
the undisturbed server gave.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file

from support.client import PromptError, checked
from support.paths import ROOT
from support.server import Server
from tools import soak_graphs

KINDS = ("interrupt", "RuntimeError", "out of memory", "NaN")
UNDISTURBED = 0.3  # of the runs after the first round
FREE_EVERY = 25  # runs: unload everything, as the frontend's button does
CENSUS_EVERY = 10
EXPECTED = {"RuntimeError": "injected fault", "out of memory": "injected fault", "NaN": "NaN"}
PATIENCE = 120.0
CLOSE = 1e-3  # of the largest latent: the same evaluations in smaller batches differ in their last bits


@dataclass
class Outcome:
    """What came of one prompt."""

    ended: str  # done, interrupted, failed
    said: str = ""
    latents: np.ndarray | None = None
    seconds: float = 0.0
    told: dict[str, Any] = field(default_factory=dict)  # what the node `tell` or `census` told
    cached: list[str] = field(default_factory=list)  # nodes that were not run again

    def same(self, other: Outcome) -> bool:
        """Both have latents, and they are the same bits."""
        if self.latents is None or other.latents is None or self.latents.shape != other.latents.shape:
            return False
        return self.latents.tobytes() == other.latents.tobytes()

    def close(self, other: Outcome) -> bool:
        """Both have latents, and these agree but for rounding."""
        if self.latents is None or other.latents is None or self.latents.shape != other.latents.shape:
            return False
        return bool(np.abs(self.latents - other.latents).max() <= CLOSE * np.abs(other.latents).max())


@dataclass
class Soak:
    """A soak test on a running server; `count` and `curve` fill while it runs."""

    server: Server
    seed: int = 0
    names: tuple[str, ...] = tuple(soak_graphs.WORKFLOWS)
    count: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    known: dict[str, Outcome] = field(default_factory=dict)  # the undisturbed run of every workflow
    rss: list[int] = field(default_factory=list)  # bytes, after each run
    curve: list[dict[str, Any]] = field(default_factory=list)  # what was alive after how many runs
    serial: int = 0

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        place_detector(self.server)
        self.vanilla = self.ask(soak_graphs.vanilla())
        if self.vanilla.ended != "done":
            raise RuntimeError(f"the fresh server's vanilla run {self.vanilla.ended}: {self.vanilla.said}")

    def run(self, runs: int, undisturbed: float = UNDISTURBED, say: bool = True) -> None:
        """So many runs of the workflows in turn; the first round is undisturbed."""
        for i in range(runs):
            name = self.names[i % len(self.names)]
            first = name not in self.known
            kind = "none" if first or self.draw.random() < undisturbed else self.draw.choice(KINDS)
            began = time.monotonic()
            what = self.once(name, kind)
            self.count["runs"] += 1
            self.rss.append(psutil.Process(self.server.process.pid).memory_info().rss)  # type: ignore[union-attr]
            if (i + 1) % CENSUS_EVERY == 0:
                self.census(i + 1)
            if (i + 1) % FREE_EVERY == 0:
                self.server.free()
            if say:
                took = time.monotonic() - began
                print(f"{i + 1:4d}/{runs} {took:5.1f} s {self.rss[-1] / 2**20:6.0f} MiB  {name}: {what}", flush=True)

    def once(self, name: str, kind: str, call: int = 0) -> str:
        """One run and, when it was disturbed, what follows it. Returns in words what happened.

        call: which call of the model is struck, from 1; 0 draws one.
        """
        self.serial += 1
        known = self.known.get(name)
        struck = kind if kind in EXPECTED else "none"
        call = call or (self.draw.randint(1, known.told["calls"]) if known else 1)
        delay = self.draw.uniform(0, known.seconds) if known and kind == "interrupt" else None
        graph = soak_graphs.workflow(name, self.serial, struck, call)
        got = self.ask(graph, delay)
        if kind == "none":
            self.undisturbed(name, got)
            return got.ended
        self.disturbed(name, kind, call, got)
        if got.ended == "done" or self.draw.random() < 0.5:  # KSampler's prompt puts ours out of the cache
            self.between()
            self.again(name, soak_graphs.workflow(name, self.serial + 10**6))
        elif kind == "NaN":  # what it has spoiled is in the cache
            self.again(name, soak_graphs.workflow(name, self.serial + 10**6))
            self.between()
        else:
            self.again(name, graph)
            self.between()
        where = f"after {delay:.2f} s" if delay is not None else f"at call {call} of {known.told['calls']}"
        return f"{kind} {where}: {got.ended}" + (f", {got.said[:60]!r}" if got.ended == "failed" else "")

    def undisturbed(self, name: str, got: Outcome) -> None:
        self.count["undisturbed"] += 1
        if got.ended != "done" or got.latents is None or not np.isfinite(got.latents).all():
            self.wrong.append(f"{name}, undisturbed: {got.ended} {got.said}")
        elif name not in self.known:
            self.known[name] = got
        else:
            self.count["repeated"] += 1
            self.count["repeated, identical"] += self.expect(got, self.known[name], f"{name}, repeated")

    def disturbed(self, name: str, kind: str, call: int, got: Outcome) -> None:
        if kind == "interrupt":
            self.count["interrupted" if got.ended == "interrupted" else "interrupted too late"] += 1
            if got.ended == "failed":
                self.wrong.append(f"{name}, interrupted: {got.said}")
            return
        self.count[f"failed by {kind}" if got.ended == "failed" else f"went on after {kind}"] += 1
        if got.ended == "failed" and EXPECTED[kind] not in got.said:
            self.wrong.append(f"{name}, {kind} at call {call}: failed with {got.said}")
        if got.ended == "done" and kind == "out of memory" and name in soak_graphs.FRUGAL:
            if not got.close(self.known[name]):
                self.wrong.append(f"{name}, in smaller batches: another picture")
        elif got.ended == "done" and kind != "NaN":
            self.wrong.append(f"{name}, {kind} at call {call}: swallowed")

    def again(self, name: str, graph: dict) -> None:
        """The workflow once more, undisturbed; where the host's cache kept parts of the disturbed run, on those."""
        got = self.ask(graph)
        self.count["queued again"] += 1
        self.count["queued again, on cached results"] += any(n not in soak_graphs.scene() for n in got.cached)
        self.count["queued again, identical"] += self.expect(got, self.known[name], f"{name}, queued again")

    def between(self) -> None:
        """KSampler without the pack."""
        got = self.ask(soak_graphs.vanilla())
        self.count["vanilla"] += 1
        if "sample" in got.cached:
            self.wrong.append("the host took the vanilla picture out of its cache")
        self.count["vanilla, identical"] += self.expect(got, self.vanilla, "vanilla")

    def expect(self, got: Outcome, wanted: Outcome, what: str) -> bool:
        if same := got.same(wanted):
            return same
        gap = "" if got.latents is None or wanted.latents is None else f", {np.abs(got.latents - wanted.latents).max()}"
        self.wrong.append(f"{what}: {got.ended} {got.said}{gap}")
        return False

    def census(self, runs: int, trim: bool = False) -> dict[str, Any]:
        self.server.post("/history", {"clear": True})  # the host keeps every prompt that it has run
        told = self.ask(soak_graphs.census(self.serial * 1000 + self.count["runs"] + trim, trim)).told
        self.curve.append({"runs": runs, **told})
        return told

    def ask(self, graph: dict, delay: float | None = None) -> Outcome:
        """Queue a prompt and wait; interrupt it after `delay` seconds."""
        began = time.monotonic()
        prompt = self.server.queue(graph)
        if delay is not None:
            time.sleep(delay)
            self.server.post("/interrupt", {"prompt_id": prompt})
        entry = None
        while entry is None:
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"a prompt did not end in {PATIENCE:.0f} s\n{self.server.log_tail()}")
            time.sleep(0.03)
            entry = self.server.call("GET", f"/history/{prompt}").json().get(prompt)
        return self.read(entry, time.monotonic() - began)

    def read(self, entry: dict, seconds: float) -> Outcome:
        messages = (entry.get("status") or {}).get("messages", [])
        cached = [n for event, data in messages if event == "execution_cached" for n in data["nodes"]]
        try:
            checked(entry)
        except PromptError as error:
            ended = "interrupted" if error.kind == "interrupted" else "failed"
            return Outcome(ended, error.message, seconds=seconds, cached=cached)
        found, latents, told = entry["outputs"], None, {}
        for output in found.values():
            for file in output.get("latents", []):
                path = self.server.base / "output" / file["subfolder"] / file["filename"]
                latents = load_file(path)["latent_tensor"]
                path.unlink()
            told |= json.loads(output["told"][0]) if "told" in output else {}
        return Outcome("done", "", latents, seconds, told, cached)


def place_detector(server: Server) -> None:
    """A copy detector with random weights among the server's models."""
    if "memorization_guard" not in sys.modules:
        from support import bootstrap  # it prepares the host, in a folder of its own, and registers the pack

        shutil.rmtree(bootstrap.BASE, ignore_errors=True)
    from safetensors.torch import save_file

    from support.copy_detectors import random_sscd

    folder = server.base / "models" / "copy_detection"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: w.clone() for n, w in random_sscd().state_dict().items()}
    save_file(weights, str(folder / soak_graphs.DETECTOR))
    references = server.base / "models" / "memorization_references"
    references.mkdir(parents=True, exist_ok=True)


def main() -> int:
    from soak_page import console, page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--control", type=int, default=60, help="runs of KSampler alone, on another server")
    parser.add_argument("--write", action="store_true", help="write docs/soak.md")
    options = parser.parse_args()
    with Server() as server:
        soak = Soak(server, options.seed)
        soak.run(options.runs)
        soak.census(options.runs, trim=True)
    control = None
    if options.control:
        print("KSampler alone, disturbed in the same way:", flush=True)
        with Server() as server:
            control = Soak(server, options.seed, tuple(soak_graphs.CONTROL))
            control.run(options.control)
            control.census(options.control, trim=True)
    print(console(soak, control))
    if options.write:
        (ROOT / "docs" / "soak.md").write_text(page(soak, control), encoding="utf-8")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
