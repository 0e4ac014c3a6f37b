"""Exact nearest references by chunked matrix products.

Rows are stored as float16 and multiplied as float32, a chunk at a time. That halves the memory, and the products are
as exact as the stored rows. A chunk fits into a CPU's cache, so the conversion costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .reference_set import Metric

CPU_CHUNK = 2**20  # elements converted at a time: 4 MB as float32
DEVICE_CHUNK = 2**24
BLOCK = 2**16  # rows between two reductions to the k best, so that memory does not grow with N
SPARE = 8  # nL2: candidates measured again, exactly


class ReferenceIndex:
    """Compares a query with every reference.

    `features`: (N, D) float16, moved to `device` once. Queries may come from another device. Without `device` the
    comparison runs where the features are, for sets that do not fit on the device.
    """

    def __init__(self, features: Tensor, metric: Metric, device: torch.device | str | None = None) -> None:
        self.features = features if device is None else features.to(device)
        self.metric = metric
        self.squared = self._squared_lengths() if metric == "nL2" else None

    def __len__(self) -> int:
        return len(self.features)

    def nearest(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """(B, D) -> values (B, k) float32 and rows (B, k) int64, the nearest first, on the queries' device.

        Values are cosines, or ℓ₂ distances for nL2. A k above the number of references returns all of them. No
        gradient.
        """
        with torch.no_grad():
            home = queries.device
            queries = queries.detach().to(self.features.device, torch.float32)
            k = min(k, len(self))
            if self.squared is None:
                values, rows = self._best(queries, k)
            else:
                rows = self._best(queries, min(k + SPARE, len(self)))[1]
                distance = torch.linalg.vector_norm(queries[:, None] - self.features[rows].float(), dim=2)
                values, order = distance.topk(k, dim=1, largest=False)
                rows = rows.gather(1, order)
            return values.to(home), rows.to(home)

    def take(self, rows: Tensor) -> Tensor:
        """Features of rows (B, k) -> (B, k, D) float32 on the rows' device, usable by autograd."""
        with torch.inference_mode(False), torch.no_grad():
            return self.features[rows.to(self.features.device)].float().to(rows.device)

    def _best(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k rows with the largest score: the cosine, or q·r − |r|²/2, which orders as −ℓ₂ does."""
        values = queries.new_empty(len(queries), 0)
        rows = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)
        for start in range(0, len(self), BLOCK):
            end = min(start + BLOCK, len(self))
            scores = torch.cat([queries @ chunk.T for chunk in self._chunks(start, end)], dim=1)
            if self.squared is not None:
                scores -= self.squared[start:end] / 2
            best, at = scores.topk(min(k, scores.shape[1]), dim=1)
            values, rows = torch.cat([values, best], dim=1), torch.cat([rows, at + start], dim=1)
            values, order = values.topk(min(k, values.shape[1]), dim=1)
            rows = rows.gather(1, order)
        return values, rows

    def _chunks(self, start: int, end: int) -> Iterator[Tensor]:
        """The rows as float32, a few at a time; each chunk overwrites the one before."""
        size = CPU_CHUNK if self.features.device.type == "cpu" else DEVICE_CHUNK
        step = min(max(size // self.features.shape[1], 1), end - start)
        buffer = torch.empty(step, self.features.shape[1], device=self.features.device)
        for part in self.features[start:end].split(step):
            yield buffer[: len(part)].copy_(part)

    def _squared_lengths(self) -> Tensor:
        return torch.cat([chunk.square().sum(dim=1) for chunk in self._chunks(0, len(self))])
