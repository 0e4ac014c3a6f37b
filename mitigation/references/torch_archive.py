"""Weights out of a PyTorch zip archive (TorchScript or a plain state dict), without running anything in it.

`torch.jit.load` runs the `__setstate__` of a TorchScript archive, and an ordinary unpickler calls whatever a
file names. Here only tensors are rebuilt, and every object becomes an inert holder of its attributes.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NOT_IN_WEIGHTS = ("BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4")
LARGEST_PICKLE = 2**21  # bytes, of which each can make an object; the official SSCD archive's is about 100 kB
MOST_VIEWS = 100  # of one storage
LONGEST_NAME = 1000  # characters
DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64,
        "Float": torch.float32,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}


class _NotWeights(ValueError):
    """The message says what is wrong with the file, in printable characters: names in it come from the file."""

    def __init__(self, what: str) -> None:
        super().__init__((what if what.isprintable() else ascii(what)[1:-1])[:200])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in the archive's dictionaries and modules by their dotted names, as in a state dict, on the CPU.

    Memory stays below four times the size of the file. Raises ValueError if the file is no such archive, if it names a
    function or a class that is neither a tensor's nor a TorchScript module's, or if a module restores itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return dict(_tensors(_read(archive)))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError) as error:
        raise _NotWeights(f"it is no PyTorch zip archive: {error}") from None
    except _NotWeights:
        raise
    except (
        pickle.UnpicklingError,
        ValueError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise _NotWeights(f"it is damaged or holds more than weights: {error}") from None


def _read(archive: zipfile.ZipFile) -> Any:
    pickles = [entry for entry in archive.infolist() if entry.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
        raise _NotWeights("it is no PyTorch zip archive: it has no data.pkl of a plausible size")
    folder = pickles[0].filename.split("/")[0]
    if f"{folder}/byteorder" in archive.namelist():
        with archive.open(f"{folder}/byteorder") as order:  # not `read`: it may unfold to any size
            if order.read(7) != b"little":
                raise _NotWeights("it was saved on a big-endian machine")
    data = archive.read(pickles[0])
    _check_opcodes(data)
    return _WeightsUnpickler(io.BytesIO(data), archive, folder).load()


def _check_opcodes(data: bytes) -> None:
    """Refuse what makes the unpickler allocate more than the file holds: it sizes its memo by the largest index."""
    for opcode, argument, _ in pickletools.genops(data):
        if (opcode.name.endswith("PUT") and int(argument or 0) > len(data)) or opcode.name in NOT_IN_WEIGHTS:
            raise pickle.UnpicklingError(f"{opcode.name} {argument}")


def _tensors(value: Any, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Depth first through dictionaries and objects. Raises ValueError for an object with a state of its own.

    A dictionary that is held twice is walked once: 30 of them inside each other, twice each, would take for ever.
    """
    seen = set() if seen is None else seen
    if len(name) > LONGEST_NAME:
        raise _NotWeights(f"a weight has a name of {len(name)} characters")
    if isinstance(value, _View):
        yield name, value.tensor
        return
    if isinstance(value, _Object):
        if not isinstance(value.state, dict):
            raise _NotWeights(f"{name or 'its module'} is restored by code in the file, which is not run")
        value = value.state
    if isinstance(value, dict) and id(value) not in seen:
        seen.add(id(value))
        for key, part in value.items():
            yield from _tensors(part, f"{name}.{key}" if name else str(key), seen)


# A pickle can call what `find_class` returns and set the state of what it made: so these are classes of ours, and
# each of them says what a state may do.


class _Object:
    """Stands in for an object of any class in the archive."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Stateless:
    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state where none belongs")


class _Dict(dict):
    """An OrderedDict. A state dict carries `_metadata` as its state, which nobody needs."""

    def __setstate__(self, state: Any) -> None:
        return


class _First(_Stateless):
    """`torch._utils._rebuild_parameter` and TorchScript's type tags: the first argument is all that matters."""

    def __new__(cls, value: Any, *_: Any) -> Any:
        return value


class _Storage(_Stateless):
    """The flat numbers that tensors are views of."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        self.views, self.left = MOST_VIEWS, 2 * numbers.numel()

    def spend(self, size: tuple) -> None:
        """Repeated elements, and views that repeat each other, could claim any amount of memory."""
        self.views, self.left = self.views - 1, self.left - math.prod(size)
        if self.views < 0 or self.left < 0 or min(size, default=0) < 0:
            raise pickle.UnpicklingError(f"tensors of the shape {size} in {self.numbers.numel()} numbers")


class _View(_Stateless):
    """`torch._utils._rebuild_tensor_v2`: a copy of a view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> None:
        storage.spend(size)
        self.tensor = storage.numbers.as_strided(size, stride, offset).clone()


CLASSES = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _View,
    "torch._utils._rebuild_parameter": _First,
    "torch.jit._pickle.restore_type_tag": _First,
    **{f"torch.jit._pickle.build_{kind}list": list for kind in ("int", "double", "bool", "tensor")},
}


class _WeightsUnpickler(pickle.Unpickler):
    """Knows no class but those above: see "Restricting Globals" in the documentation of pickle."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self.archive = archive
        self.folder = folder
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Object
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if f"{module}.{name}" not in CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is no weight")
        return CLASSES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _location, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        entry = self.archive.getinfo(f"{self.folder}/data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"a storage of {count} numbers in {entry.file_size} bytes")
        if key not in self.storages:
            read = bytearray(self.archive.read(entry))
            self.storages[key] = _Storage(torch.frombuffer(read, dtype=dtype) if count else torch.empty(0, dtype=dtype))
        return self.storages[key]
