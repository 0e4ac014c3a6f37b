"""A search among many references: the pack's exact one, and FAISS's where faiss-cpu is installed.

.host/python -m benchmarks.reference_search [count]

Unit vectors around shared centres. Half of the queries are references with noise, the others are new. One thread.
"""

import importlib.util
import sys
import time
from functools import partial
from statistics import median
from timeit import timeit
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from support import bootstrap  # noqa: F401 - first: it makes the pack importable

# isort: split
from memorization_guard.mitigation.references.index import ReferenceIndex

DIMS, QUERIES, CENTRES, BLOCK = 512, 200, 1000, 2**14
KINDS = {"flat": ("Flat", ""), "flat, float16": ("SQfp16", ""), "HNSW 32, efSearch 64": ("HNSW32", "efSearch=64")}
KINDS |= {f"IVF 1024, {n} cells searched": ("IVF1024,Flat", f"nprobe={n}") for n in (16, 64)}


def drawn(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CENTRES, DIMS, generator=generator)

    def some(n: int) -> Tensor:
        at = torch.randint(CENTRES, (n,), generator=generator)
        return normalize(0.6 * centres[at] + torch.randn(n, DIMS, generator=generator))

    rows = torch.cat([some(min(BLOCK, count - start)).half() for start in range(0, count, BLOCK)])
    copied, other = rows[torch.randperm(count, generator=generator)[: QUERIES // 2]].float(), some(QUERIES // 2)
    return rows, torch.cat([normalize(copied + 0.8 * some(QUERIES // 2)), other])


def exact(rows: Tensor) -> tuple[Any, int]:
    index = ReferenceIndex(rows, "descriptor")
    return lambda queries: index.nearest(queries)[1][:, 0], rows.nbytes


def by_faiss(faiss: Any, rows: Tensor, kind: str, settings: str) -> tuple[Any, int]:
    index = faiss.index_factory(DIMS, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:: max(len(rows) // 40_000, 1)].float().numpy())
    index.add(rows.float().numpy())
    faiss.ParameterSpace().set_index_parameters(index, settings)
    size = faiss.serialize_index(index).nbytes
    return lambda queries: torch.from_numpy(index.search(queries.numpy(), 1)[1][:, 0]), size


def milliseconds(search: Any, parts: tuple[Tensor, ...]) -> str:
    return f"{median(1000 * timeit(partial(search, part), number=1) / len(part) for part in parts):.2f} ms"


def main(count: int) -> None:
    torch.set_num_threads(1)
    rows, queries = drawn(count)
    builders = {"exact, as in this pack": partial(exact, rows)}
    if importlib.util.find_spec("faiss"):
        faiss = importlib.import_module("faiss")
        faiss.omp_set_num_threads(1)
        builders |= {f"FAISS {name}": partial(by_faiss, faiss, rows, *own) for name, own in KINDS.items()}
    print(f"| {count} × {DIMS} | build | a query alone | of {QUERIES} at once | memory | same nearest |\n{6 * '|---'}|")
    truth = exact(rows)[0](queries)
    for name, build in builders.items():
        start = time.perf_counter()
        (search, size), built = build(), time.perf_counter() - start
        times = f"{milliseconds(search, queries[::4].split(1))} | {milliseconds(search, 3 * (queries,))}"
        same = (search(queries) == truth).float().mean()
        print(f"| {name} | {built:.1f} s | {times} | {size / 1e6:.0f} MB | {same:.1%} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
