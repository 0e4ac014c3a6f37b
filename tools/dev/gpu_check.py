"""`make gpu-check`: every node on your GPU as ComfyUI runs it, as a report to paste into an issue.

For each way in which the host may hold weights it starts `main.py` with the flags for it, and over HTTP asks every
node on tiny models: a strength of zero must be bit-identical to a KSampler run beside it, the weights must stay the same
bytes, and every gradient must agree with finite differences. The first run after each load is thrown away, because on
a GPU it differs from all later ones. The exit status is 1 if something failed, and 2 if the host does not start.
`gpu_check.py NAME ...` checks only these states; --fast a part of each.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
import torch

from support.client import PromptError
from support.in_process import configure
from support.paths import CHECK_PACK
from support.server import Server, ServerError, find_host, place
from tools.dev.matrix import say, table, wanted

DEFAULT, ALL = "default", "every family"
STATES = {  # {memory}: all of the device's, so that no weight stays on it
    DEFAULT: "",
    "legacy": "--disable-dynamic-vram",
    "low": "--lowvram",
    "none": "--novram",
    "none, asynchronous": "--novram --async-offload",
    "none, synchronous": "--novram --disable-async-offload",
    "high": "--highvram",
    "reserved": "--reserve-vram {memory}",
    "headroom": "--vram-headroom {memory}",
    "fp32": "--fp32-unet --fp32-vae",
    "fp16": "--fp16-unet",
    "bf16": "--bf16-unet",
    ALL: "",  # at every precision
}
NOT_ON_A_CPU = {"--lowvram", "--novram", "--highvram"}  # these and --cpu exclude each other
FEW = ("SDXL V, zero SNR bf16", "Flux, true CFG fp16", "SD1.x fp32, LoRA")  # in the other states
# What a log says last about why: of an exception, of a wrong flag, of a missing package.
REASON = re.compile(r"^(?:\S+: error: .+|[\w.]*(?:Error|Exception|Exit)\b.*|.* is not installed.*)$", re.M)


def flags_of(state: str, gpu: bool) -> tuple[list[str], str]:
    """The flags of a state, and why it cannot be tried here."""
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30 if gpu else 1
    flags = STATES[state].format(memory=round(memory)).split()
    known = (find_host() / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    for flag in flags:
        if flag.startswith("--") and f'"{flag}"' not in known:
            return flags, f"this ComfyUI has no {flag}"
        if not gpu and flag in NOT_ON_A_CPU:
            return flags, f"{flag} needs a GPU"
    return flags, ""


def reason(error: Exception) -> str:
    """One line: what ended, and what its log says last about why."""
    first, _, log = str(error).partition("\n")
    lines = REASON.findall(log) or [line for line in log.splitlines()[1:] if line.strip()]
    return f"{first}: {lines[-1].strip()}" if lines else first


def gradients(host, only: tuple[str, ...]) -> Iterator[tuple[str, str, object]]:
    """(precision, what, its Gradient or the error) of every gradient that the pack takes, on the lab checkpoint."""
    from support.families import cells, files, kinds
    from support.graphs import from_images, node, references

    links = {"positive": ["mem", 0], "negative": ["null", 0], "latent_image": ["latent", 0]}
    images = torch.rand(60, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    noise = {"samples": torch.randn(2, *files.LAB.latent, generator=torch.Generator().manual_seed(9))}
    sets = {"latent": references(latents="noise"), **{m: from_images(m, vae=["vae", 0]) for m in ("nL2", "descriptor")}}
    limits = {"threshold_min": -1.0, "threshold_max": -1.0, "threshold_schedule": "constant"}
    asked = {f"d, checkpointing {how}": {"checkpoints": how} for how in ("off", "on", "full")}
    asked["d, half of the weights evicted"] = {"checkpoints": "off", "evict": 0.5}
    asked |= {"latent, through model": ("latent", "through model")}
    asked |= {f"{metric}, through VAE": (metric, "through prediction") for metric in ("nL2", "descriptor")}
    for precision in [p for p in [kinds.USUAL, *kinds.PRECISIONS.values()] if p.name in only]:
        given = {**host.load(files.LAB, precision), "i": images, "noise": noise}
        words = cells.Bench(host, files.LAB, given).words
        for what, how in asked.items():
            if isinstance(how, dict):
                nodes = {"g": cells.gradient_node(**words.links, exact=["exact", 0], **how)}
            else:
                own = {"despecification": 0.0, "vae": ["vae", 0], "gradient": how[1], **limits}
                measure = node("MGTest_AMGGradient", model=["a", 0], **links)
                nodes = {"refs": sets[how[0]], "a": words.amg(**own), "g": measure}
            try:
                yield precision.name, what, host.run(nodes, given)["g"][0]
            except cells.NodeError as error:
                yield precision.name, what, error


def check(state: str, flags: list[str], gpu: bool, fast: bool, began: float) -> tuple[list, list, str]:
    """The rows and the gradients of one state, and what the host says about itself."""
    server = Server(extra=flags, lab=False, cpu=not gpu)
    (server.base / "custom_nodes").mkdir()
    place(CHECK_PACK, server.base / "custom_nodes" / "memorization_guard_check")
    with server:
        if failures := server.import_failures():
            raise ServerError(f"a pack did not load\n{failures[-1]}")
        from support.families import cells, files, kinds
        from support.remote_host import RemoteHost

        host, rows = RemoteHost(server), [(files.SD1, kinds.USUAL)]
        rows += [(f, p) for f, p in wanted(fast) if state == ALL or f"{f.name} {p.name}" in FEW]
        found, measured = [], []
        for family, precision in rows:
            found.append((family, f"{state}: {precision.name}", cells.row(host, family, precision, made=host)))
            say(began, family.name, found[-1][1], found[-1][2])
        only = ("fp32", kinds.USUAL.name, *(("fp16", "bf16") if state == ALL else ()))
        for precision, what, gradient in gradients(host, only):
            good = getattr(gradient, "good", False)
            measured.append((state, precision, what, str(getattr(gradient, "said", gradient)), good))
            print(f"[{time.monotonic() - began:4.0f} s] gradient of {what}, {precision}: {measured[-1][3]}", flush=True)
        about = server.get("/system_stats").json()
        dynamic = "on" if "DynamicVRAM support detected and enabled" in server.log_text() else "off"
        device = about["devices"][0]
        said = f"{device['name']}, {device['vram_total'] / 2**30:.1f} GB; dynamic VRAM {dynamic}"
        return found, measured, f"ComfyUI {about['system']['comfyui_version']}, {said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("states", nargs="*", metavar="STATE", help=f"{'; '.join(STATES)}; all by default")
    parser.add_argument("--fast", action="store_true", help="a part of it")
    options = parser.parse_args()
    if unknown := set(options.states) - set(STATES):
        parser.error(f"no such state: {', '.join(unknown)}")
    gpu, began, status = torch.cuda.is_available(), time.monotonic(), 0
    if not gpu:
        print("No GPU found: this runs on the CPU and says nothing about a GPU.")
    found, measured, states, wrong = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for state in options.states or STATES:
            try:
                configure(Path(folder), "--cpu")  # this process computes nothing, but reads the host's modules
                flags, why = flags_of(state, gpu)
                if why:
                    states.append(f"{state}: not tried, {why}")
                    continue
                print(f"{state}: main.py {' '.join(flags)}", flush=True)
                rows, gradients, about = check(state, flags, gpu, options.fast, began)
                found, measured = found + rows, measured + gradients
                states.append(f"{state}: {' '.join(flags) or 'no flags'}; {about}")
            except (ServerError, PromptError, ImportError, OSError, requests.RequestException) as error:
                status = 2
                states.append(f"{state}: {reason(error)}")
                print(states[-1])
                if state == ALL:
                    return status
    wrong += [f"{f.name}, {p}, {n}: {c.said}" for f, p, r in found for n, c in r.items() if c.outcome == "FAIL"]
    wrong += [
        f"{state}: {precision}, gradient of {what}: {said}" for state, precision, what, said, ok in measured if not ok
    ]
    print("\n--- paste from here ---")
    cuda = f"CUDA {torch.version.cuda or 'none'}, {platform.system()} {platform.machine()}"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {cuda}")
    print("\n".join([*(["No GPU: says nothing about one."] if not gpu else []), *states, ""]))
    if found:
        print(table(found))
    print("\n| state | precision | gradient | relative error | |\n|---|---|---|---|---|")
    for state, precision, what, said, ok in measured:
        print(f"| {state} | {precision} | {what} | {said} | {'✓' if ok else 'FAIL'} |")
    print(f"\n{len(wrong)} failed, {time.monotonic() - began:.0f} s", *wrong, "--- to here ---", sep="\n")
    return status or int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
