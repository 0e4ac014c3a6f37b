"""`make gpu-check`: the matrix on your GPU in fp16, bf16 and fp32, as a report to paste into an issue.

Prints versions, the device and its memory, and every cell; a cell passes only if a strength of zero is bit-identical to
KSampler and the weights are the same bytes afterwards. Without a GPU it says so and runs on the CPU. The exit status is
1 if a cell fails.
"""

from __future__ import annotations

import argparse
import platform
import sys

import torch

from tools.dev.matrix import all_cells, run, table


def device() -> str:
    """What the host would compute on."""
    if not torch.cuda.is_available():
        return "no GPU found: this ran on the CPU and says nothing about a GPU"
    gpu = torch.cuda.get_device_properties(0)
    return f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GB, compute capability {gpu.major}.{gpu.minor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="a part of it, in a minute")
    options = parser.parse_args()
    gpu, where = torch.cuda.is_available(), f"Device: {device()}"
    print(where)
    found, seconds = run(options.fast, cuda=gpu)
    from comfyui_version import __version__ as comfyui

    failed = [cell for cell in all_cells(found) if cell.outcome == "FAIL"]
    identical = sum(row["Sampler, off"].outcome == "pass" for _, _, row in found)
    unchanged = not any("weights" in cell.said for cell in failed)
    print("\n--- paste from here ---")
    print(f"ComfyUI {comfyui}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"CUDA {torch.version.cuda or 'none'}, {platform.system()} {platform.machine()}\n{where}")
    if gpu:
        print(f"Peak memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
    print(f"`off` bit-identical to KSampler: {identical} of {len(found)} rows; weights unchanged: {unchanged}\n")
    print(table(found))
    print(f"{len(failed)} failed, {seconds:.0f} s\n--- to here ---")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
