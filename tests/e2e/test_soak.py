"""One server, many runs, interrupted and failing: a disturbed run changes no later image and leaves nothing behind."""

import contextlib
import json
import os
import random
import re
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from support import small_lab
from support.client import Client, PromptError
from support.graphs import Prompt, Words, node
from support.graphs.checkpoint import CLIP, VAE, WIRES, start
from support.server import Server

SETS, DISK = "models/memorization_references", "full"  # the folder in SETS on which a small disk is mounted
LOADED = "soak.safetensors"
NOTHING = b"{}"


@contextlib.contextmanager
def little_memory(server: Server, draw: random.Random) -> Iterator[None]:
    process, unlimited = psutil.Process(server.process.pid), (resource.RLIM_INFINITY,) * 2
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + (draw.randrange(1, 64) << 20), unlimited[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_AS, unlimited)


@contextlib.contextmanager
def full_disk(server: Server, draw: random.Random) -> Iterator[None]:
    clear(server)
    disk = server.base / SETS / DISK
    (disk / "filler").write_bytes(bytes(room := os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - (8 << 10)))
    assert room > 0
    try:
        yield
        assert not list(disk.glob(".*")) and not list(disk.glob("*.safetensors")), "half a file was left"
    finally:
        (disk / "filler").unlink()


@contextlib.contextmanager
def replaced_file(server: Server, draw: random.Random) -> Iterator[None]:
    """Another program writes the saved set again and again, in its place: half of it, something else, all of it."""
    file, done = server.base / SETS / LOADED, threading.Event()
    whole = file.read_bytes()

    def write() -> None:
        while not done.is_set():
            file.write_bytes(draw.choice((whole, whole, whole[: len(whole) // 2], NOTHING, b"")))
            time.sleep(draw.random() / 20)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
        file.write_bytes(whole)


@contextlib.contextmanager
def freed(server: Server, draw: random.Random) -> Iterator[None]:
    server.free()
    press = threading.Timer(draw.random() / 2, Server.free, [server])
    press.start()
    yield
    press.join()


AROUND: dict[str, tuple[Callable, str]] = {  # and words of the error that it may cause
    "little memory": (little_memory, "memory|create a primitive"),
    "full disk": (full_disk, "No space left"),
    "replaced file": (replaced_file, "cannot be used"),
    "freed": (freed, "nothing"),
}


@contextlib.contextmanager
def small_disk(server: Server) -> Iterator[bool]:
    """Mount a disk of 64 MB among the saved sets; False where that is not allowed."""
    place = server.base / SETS / DISK
    place.mkdir(parents=True, exist_ok=True)
    mounted = not subprocess.call(["mount", "-ttmpfs", "-osize=64m", "mg", str(place)], stderr=subprocess.DEVNULL)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.check_call(["umount", str(place)])


def clear(server: Server) -> None:
    for file in Path(server.base / SETS / DISK).glob("*.safetensors"):
        file.unlink()


RUNS, SEED = int(os.environ.get("SOAK_RUNS", "9")), int(os.environ.get("SOAK_SEED", "7"))
FAULTS = {"exception": "injected fault", "out of memory": "injected fault", "nan": "NaN"}  # and the error's words
KINDS = ("none", "interrupt", "two clients", *FAULTS, *AROUND)
ROUNDING = 1e-3  # of the largest latent: the same evaluations in smaller batches differ in their last bits
GROWTH = 0.03  # of the server's memory
SHORT = {"steps": 6, "max_iterations": 3, "target_magnitude": 0.001, "threshold_min": 0.1, "threshold_max": 0.2}
pytestmark = pytest.mark.timeout(300 + 30 * RUNS)
START = start("Harbour at Dawn, a red disc", 64, 2)
METERED = Words({**WIRES, "model": ["metered", 0]}, {"seed": 2025, "noise_seed": 2025})
LOOK = METERED.detector(noise_seed=1, **small_lab.DETECTOR)
DETECTED = {"look": LOOK, "sample": METERED.deferred(curve=["look", 3])}
PATCHED = {"patched": METERED.patch(**small_lab.DEFERRED), "sample": METERED.ksampler(model=["patched", 0])}
REFERENCES = {"refs": node("MG_ReferencesFromFolder", folder="training", vae=VAE, size_of=["latent", 0])}
THROUGH_MODEL = {"guided": METERED.amg(gradient="through model"), "sample": METERED.deferred(model=["guided", 0])}
THROUGH_MODEL |= REFERENCES
AMG = {
    **REFERENCES,
    "guided": METERED.amg(clip=CLIP, deduplication=5.0),
    "sample": METERED.ksampler(model=["guided", 0]),
    "decode": node("VAEDecode", samples=["sample", 0], vae=VAE),
    "check": node("MG_CopyCheck", images=["decode", 0], references=["refs", 0], vae=VAE),
    "compared": node("PreviewImage", images=["check", 4]),
}
LOADING = {
    "refs": node("MG_LoadReferences", file=LOADED),
    "guided": METERED.amg(),
    "sample": METERED.ksampler(model=["guided", 0]),
}
SAVING = {
    **REFERENCES,
    "keep": node("MG_SaveReferences", references=["refs", 0], name="", overwrite=True),
    "sample": METERED.ksampler(),
}
FOUND = METERED.optimizer(**small_lab.PER_SAMPLE)
PER_SAMPLE = {"noise": FOUND, "sample": METERED.deferred("off", noise=["noise", 0])}
BATCH_WISE = {
    "noise": METERED.optimizer("batch-wise", **small_lab.BATCH_WISE),
    "sample": METERED.deferred("static", noise=["noise", 0], **small_lab.BATCH_WISE_START),
}
VANILLA = {"sample": Words(WIRES).ksampler()}  # without the pack
WORKFLOWS = {
    "per-sample noise": PER_SAMPLE,
    "batch-wise + deferred": BATCH_WISE,
    "dynamic deferral": {"sample": METERED.deferred(**small_lab.DEFERRED)},
    "detector": DETECTED,
    "AMG": AMG,
    "model patch": PATCHED,
    "AMG through model": THROUGH_MODEL,
    "loading": LOADING,
    "saving": SAVING,
}
ONLY = {"full disk": "saving", "replaced file": "loading"}  # these disturb no other workflow


@dataclass
class Outcome:
    error: PromptError | None = None
    latents: np.ndarray | None = None
    calls: int = 0  # of the model
    cached: tuple[str, ...] = ()  # nodes whose results the server had kept
    seconds: float = 0.0

    def same(self, other: "Outcome") -> bool:
        return self.latents is not None and self.latents.tobytes() == other.latents.tobytes()


class Soak:
    def __init__(self, server: Server) -> None:
        self.server, self.draw, self.number = server, random.Random(SEED), 0
        self.other = Client(server.url)
        kept = node("MG_SaveReferences", references=["refs", 0], name=LOADED, overwrite=True)
        server.run({**START, **REFERENCES, "keep": kept})
        self.vanilla = self.ask(self.prompt(VANILLA))
        self.known = {name: self.ask(self.prompt(nodes)) for name, nodes in WORKFLOWS.items()}
        assert all(np.isfinite(outcome.latents).all() for outcome in self.known.values())

    def prompt(self, nodes: Prompt, fault: str = "none", at_call: int = 1) -> Prompt:
        """The nodes, on a model that fails at one call and never again. Its number keeps it out of the cache."""
        self.number += 1
        given = {
            **START,
            "metered": node("MGLab_MeteredModel", model=WIRES["model"], fault=fault, at_call=at_call, run=self.number),
            **nodes,
            "save": node("SaveLatent", samples=["sample", 0], filename_prefix="soak"),
            "told": node("MGLab_Tell", meter=["metered", 1], after=["sample", 0]),
        }
        if "keep" in nodes:  # a name that the server has not saved yet, or it would only remember
            given["keep"] = node("MG_SaveReferences", **{**nodes["keep"]["inputs"], "name": f"{DISK}/{self.number}"})
        short = {name: {k: v for k, v in SHORT.items() if k in n["inputs"]} for name, n in given.items()}
        return {name: {**n, "inputs": {**n["inputs"], **short[name]}} for name, n in given.items()}

    def ask(self, prompt: Prompt, interrupt_after: float | None = None) -> Outcome:
        began = time.monotonic()
        prompt_id = self.server.queue(prompt)
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            self.server.post("/interrupt", {"prompt_id": prompt_id})  # does nothing if the prompt has ended
        try:
            entry = self.server.wait(prompt_id)
        except PromptError as error:
            return Outcome(error)
        return self.outcome(entry, time.monotonic() - began)

    def outcome(self, entry: dict, seconds: float = 0.0) -> Outcome:
        file, messages = entry["outputs"]["save"]["latents"][0], entry["status"]["messages"]
        latents = load_file(self.server.base / "output" / file["subfolder"] / file["filename"])["latent_tensor"]
        calls = json.loads(entry["outputs"]["told"]["told"][0])["calls"]
        cached = tuple(n for event, data in messages if event == "execution_cached" for n in data["nodes"])
        return Outcome(None, latents, calls, cached, seconds)

    def disturb(self, name: str, kind: str, call: int = 1) -> Outcome:
        """One run; after it the same workflow, and KSampler without the pack, give what they gave at first."""
        known, nodes = self.known[name], WORKFLOWS[name]
        prompt = self.prompt(nodes, kind if kind in FAULTS else "none", call)
        if kind == "little memory":  # for more images, because malloc has kept enough for these
            prompt["latent"]["inputs"]["batch_size"] = 64
        around, words = AROUND.get(kind, (lambda *_: contextlib.nullcontext(), FAULTS.get(kind, "stopped")))
        meanwhile = self.other.queue(self.prompt(nodes)) if kind == "two clients" else ""
        with around(self.server, self.draw):
            got = self.ask(prompt, self.draw.uniform(0, known.seconds) if kind == "interrupt" else None)
        clear(self.server)
        if meanwhile:
            assert got.same(known) and self.outcome(self.other.wait(meanwhile)).same(known)
        if got.error is not None:
            assert kind not in ("none", "two clients") and re.search(words, got.error.message, re.I), got.error
        elif kind == "out of memory":
            assert np.abs(got.latents - known.latents).max() <= ROUNDING * np.abs(known.latents).max()
        elif kind not in ("nan", "little memory"):  # the host's own sampler does not notice NaN
            assert kind != "exception" and got.same(known)
        several = {"keep", "compared"} & set(nodes)  # the latents may have been saved before another output failed
        if got.error is not None and kind not in ("nan", "little memory") and not several and self.draw.random() < 0.5:
            # The same prompt directly afterwards continues from what the server's cache has kept.
            again, vanilla = self.ask(prompt), self.ask(self.prompt(VANILLA))
        else:
            vanilla, again = self.ask(self.prompt(VANILLA)), self.ask(self.prompt(nodes))
        assert again.same(known) and vanilla.same(self.vanilla), f"{name} changed after {kind} at call {call}"
        assert "sample" not in vanilla.cached
        return got

    def memory(self) -> dict[str, int]:
        """What is alive in the server's process after a garbage collection, and the memory it has.

        Newer hosts keep more of the prompt before than they need, so that is always the same one.
        """
        self.server.run(self.prompt(VANILLA))
        self.server.post("/history", {"clear": True})  # the server keeps every prompt that it has run
        self.number += 1
        # The other nodes only keep the checkpoint in the server's cache.
        entry = self.server.run({**START, "alive": node("MGLab_Alive", run=self.number)})
        return {**json.loads(entry["outputs"]["alive"]["told"][0]), "rss": self.rss()}

    def rss(self) -> int:
        return psutil.Process(self.server.process.pid).memory_info().rss


@pytest.fixture(scope="module")
def soak(server: Server) -> Iterator[Soak]:
    with small_disk(server) as mounted:
        made = Soak(server)
        made.kinds = [kind for kind in KINDS if mounted or kind != "full disk"]
        yield made


def test_no_disturbance_leaves_anything_behind(soak: Soak) -> None:
    before = soak.memory()
    for run in range(RUNS):
        kind = soak.kinds[run % len(soak.kinds)]
        name = ONLY.get(kind) or soak.draw.choice(list(WORKFLOWS))
        call = soak.draw.randint(1, soak.known[name].calls)
        got = soak.disturb(name, kind, call)
        if run % 25 == 24:
            soak.server.free()
        ended = got.error.message[:60] if got.error else "done"
        print(f"{run + 1}/{RUNS} {name}, {kind} at call {call}: {ended}, {soak.rss() >> 20} MiB", flush=True)
    after = soak.memory()
    grown = after.pop("rss") / before.pop("rss") - 1
    assert after == before and after["tensors"] > 100
    assert grown <= GROWTH
