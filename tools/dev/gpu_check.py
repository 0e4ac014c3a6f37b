"""`make gpu-check`: the matrix on your GPU in fp16, bf16 and fp32, as a report to paste into an issue.

Prints versions, the device and its memory, and every cell; a cell passes only if a strength of zero is bit-identical to
KSampler and the weights are the same bytes afterwards. Without a GPU it says so and runs on the CPU. Ends with 1 if a
cell fails.
"""

from __future__ import annotations

import argparse
import platform
import sys

import torch

from tools.dev.matrix import page, run


def device() -> str:
    """What the host would compute on, in words."""
    if not torch.cuda.is_available():
        return "NO GPU HERE: this ran on the CPU and says nothing about a GPU"
    held = torch.cuda.get_device_properties(0)
    return f"{held.name}, {held.total_memory / 2**30:.1f} GB, compute capability {held.major}.{held.minor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="a part of it, in a minute")
    options = parser.parse_args()
    there = torch.cuda.is_available()
    print(f"Device: {device()}")
    found, seconds = run(options.fast, cuda=there)
    from comfyui_version import __version__ as comfyui

    facts = [
        f"ComfyUI {comfyui}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"CUDA {torch.version.cuda or 'none'}, {platform.system()} {platform.machine()}",
        f"Device: {device()}",
        *([f"Peak memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB"] if there else []),
    ]
    cells = [c for _, _, row in found for c in row.values()]
    failed = sum(c.outcome == "FAIL" for c in cells)
    same = [row["Sampler, off"].outcome == "pass" for _, _, row in found]
    kept = not any("weights" in c.said for c in cells if c.outcome == "FAIL")
    print("\n--- paste from here ---\n" + "\n".join(facts))
    print(f"`off` bit-identical to KSampler: {sum(same)} of {len(same)} rows; weights unchanged: {kept}")
    print(page(found, f"On {device()}", seconds).split("\n\n", 2)[2])
    print(f"{failed} failed, {seconds:.0f} s\n--- to here ---")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
