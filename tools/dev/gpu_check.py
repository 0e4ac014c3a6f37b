"""`make gpu-check`: every node on your GPU as ComfyUI runs it, as a report to paste into an issue.

It starts `main.py` once for each way to hold weights and runs every node on tiny models over HTTP. The first run after
each load is thrown away, because on a GPU it differs from all later ones. The exit status is 1 if something failed, and
2 if the host does not start. `gpu_check.py NAME ...` checks only these states.
"""

import argparse
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from support.in_process import configure
from support.paths import CHECK_PACK
from support.server import Server, ServerError, find_host, place
from tools.dev.matrix import all_cells, say, table, wanted

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
FULL = ("fp32", "fp32, as it is usually loaded")
HALVES = ("fp16", "bf16")
# What a log says last about why: of an exception, of a wrong flag, of a missing package.
REASON = re.compile(r"^(?:\S+: error: .+|[\w.]*(?:Error|Exception|Exit)\b.*|.* is not installed.*)$", re.M)


def flags_of(state: str, gpu: bool) -> tuple[list[str], str]:
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
    """(precision, what, its Gradient or the error) of every gradient that the pack takes, on the small lab."""
    from support.families import cells, files, kinds
    from support.gradients import amg_gradient_node, gradient_node
    from support.graphs import from_images, node, references
    from support.graphs.checkpoint import LINKS, MEASURED, WORDS

    draw = torch.Generator().manual_seed(9)
    noise, spread = torch.randn(60, *files.LAB.latent, generator=draw), torch.linspace(0, 2, 60).view(-1, 1, 1, 1)
    images = {"vae": ["vae", 0], "images": ["images", 0]}
    sets = {"latent": references(latents="noise"), **{m: from_images(m, **images) for m in ("nL2", "descriptor")}}
    ways = {"latent": "through model", "nL2": "through prediction", "descriptor": "through prediction"}
    asked = {
        f"{metric}, {way}": {
            "images": node("VAEDecode", samples=["near", 0], vae=["vae", 0]),
            "refs": sets[metric],
            "a": WORDS.amg(vae=["vae", 0], gradient=way, **MEASURED),
            "g": amg_gradient_node((), **{**LINKS, "model": ["a", 0], "exact": ["exact vae", 0]}),
        }
        for metric, way in ways.items()
    }
    hows = {f"checkpointing {how}": {"checkpoints": how} for how in ("off", "on", "full")}
    for what, how in {**hows, "half of the weights evicted": {"evict": 0.5}}.items():
        asked[f"d, {what}"] = {"g": gradient_node(exact=["exact", 0], **LINKS, **how)}
    for precision in [p for p in [kinds.USUAL, *kinds.PRECISIONS.values()] if p.name in only]:
        given = {**host.load(files.LAB, precision), "noise": {"samples": noise}}
        vanilla = cells.Bench(host, files.LAB, given).vanilla[:1]
        given["near"] = {"samples": vanilla + vanilla.std() * spread * noise}
        for what, nodes in asked.items():
            try:
                yield precision.name, what, host.run(nodes, given)["g"][0]
            except cells.NodeError as error:
                yield precision.name, what, error


def check(state: str, flags: list[str], gpu: bool, began: float, rows: list, measured: list) -> str:
    """Add the rows and the gradients of one state; what the host says about itself."""
    server = Server(extra=flags, lab=False, cpu=not gpu)
    (server.base / "custom_nodes").mkdir()
    place(CHECK_PACK, server.base / "custom_nodes" / "memorization_guard_check")
    with server:
        if failures := server.import_failures():
            raise ServerError(f"a pack did not load\n{failures[-1]}")
        from support.families import cells, files, kinds
        from support.remote_host import RemoteHost

        host = RemoteHost(server)
        every = [(f, p) for f, p in wanted() if state == ALL or f"{f.name} {p.name}" in FEW]
        for family, precision in [(files.SD1, kinds.USUAL), *every]:
            rows.append((family, f"{state}: {precision.name}", cells.row(host, family, precision, made=host)))
            say(began, family.name, *rows[-1][1:])
        for precision, what, gradient in gradients(host, HALVES if state == ALL else FULL):
            said, good = str(getattr(gradient, "said", gradient)), getattr(gradient, "good", False)
            print(f"[{time.monotonic() - began:4.0f} s] gradient of {what}, {precision}: {said}", flush=True)
            measured.append((state, precision, what, said, good))
        about = server.get("/system_stats").json()
        dynamic = "on" if "DynamicVRAM support detected and enabled" in server.log_text() else "off"
        device = about["devices"][0]
        said = f"{device['name']}, {device['vram_total'] / 2**30:.1f} GB; dynamic VRAM {dynamic}"
        return f"ComfyUI {about['system']['comfyui_version']}, {said}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("states", nargs="*", metavar="STATE", help=f"{'; '.join(STATES)}; all by default")
    asked = parser.parse_args().states
    if unknown := set(asked) - set(STATES):
        parser.error(f"no such state: {', '.join(unknown)}")
    gpu, began = torch.cuda.is_available(), time.monotonic()
    rows, measured, states, wrong = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for state in asked or STATES:
            flags, why = flags_of(state, gpu)
            if why:
                states.append(f"{state}: not tried, {why}")
                continue
            print(f"{state}: main.py {' '.join(flags)}", flush=True)
            try:
                configure(Path(folder), "--cpu")  # this process computes nothing, but reads the host's modules
                about = check(state, flags, gpu, began, rows, measured)
                states.append(f"{state}: {' '.join(flags) or 'no flags'}; {about}")
            except Exception as error:
                states.append(f"{state}: {reason(error)}")
                print(states[-1])
                if not rows:
                    return 2  # the host does not even start
                wrong.append(states[-1])
    wrong += [f"{f.name}, {p}, {n}: {c.said}" for f, p, row in rows for n, c in row.items() if c.outcome == "FAIL"]
    wrong += [f"{s}: {p}, gradient of {what}: {said}" for s, p, what, said, good in measured if not good]
    if not any(cell.outcome == "pass" for cell in all_cells(rows)):
        wrong.append("nothing passed")
    print("\n--- paste from here ---")
    cuda = f"CUDA {torch.version.cuda or 'none'}, {platform.system()} {platform.machine()}"
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {cuda}")
    print("\n".join([*(["No GPU: says nothing about one."] if not gpu else []), *states, ""]))
    if rows:
        print(table(rows))
    print("\n| state | precision | gradient | relative error | |\n|---|---|---|---|---|")
    for *cells, good in measured:
        print("| " + " | ".join([*cells, "✓" if good else "FAIL"]) + " |")
    print(f"\n{len(wrong)} failed, {time.monotonic() - began:.0f} s", *wrong, "--- to here ---", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
