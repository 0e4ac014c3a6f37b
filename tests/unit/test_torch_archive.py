"""Detector weights are read out of PyTorch archives without running anything in them."""

import io
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from memorization_guard.mitigation.references.torch_archive import LARGEST_PICKLE, read_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
CALLS = [(eval, "1"), (Path.touch, Path("planted")), (torch.load, "x"), (torch.serialization.load, "x")]
CALLS += [(getattr, dict, "keys"), (torch.zeros, 10), (bytearray, 10**12)]
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.sizes = [1, 2, 3]
        self.tied = nn.Parameter(torch.randn(6).view(2, 3).T)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.tied.sum() + self.sizes[0]


def saved(path: Path, value: object, **pickled: object) -> Path:
    torch.save(value, path, **pickled)
    return path


def rewritten(source: Path, target: Path, data: bytes, **more: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        for entry in old.infolist():
            new.writestr(entry.filename, data if entry.filename == f"{folder}/data.pkl" else old.read(entry))
        for name, content in more.items():
            new.writestr(f"{folder}/{name}", content)
    return target


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_scripted_module_and_a_plain_state_dict_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    network = Network().to(dtype).eval()
    torch.jit.save(torch.jit.script(network), str(tmp_path / "scripted.pt"))
    wanted = network.state_dict()
    files = [tmp_path / "scripted.pt"]
    for i, made in enumerate((dict(wanted), wanted, OrderedDict(wanted), {"state_dict": wanted, "epoch": 3})):
        files.append(saved(tmp_path / f"{i}.pt", made))
    for file in files:
        found = {name.removeprefix("state_dict."): weight for name, weight in read_weights(file).items()}
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[n], w) and found[n].dtype == w.dtype for n, w in wanted.items())


class Call:
    def __init__(self, function, *args: object) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", CALLS)
def test_a_pickle_that_calls_something_is_refused(tmp_path: Path, call: tuple) -> None:
    with pytest.raises(ValueError, match="no weight"):
        read_weights(saved(tmp_path / "a.pt", {"weight": torch.ones(2), "bad": Call(*call)}))


def pickled(*opcodes: bytes) -> bytes:
    return b"\x80\x02" + b"".join(opcodes) + b"."


@pytest.mark.parametrize(
    "data",
    [
        pickled(REBUILD, b"(", STORAGE, b"K\x00J\x00\xca\x9a\x3b\x85K\x00\x85tR"),  # 10⁹ elements, stride 0
        pickled(REBUILD, b"(", STORAGE, b"K\x02K\x02\x85K\x01\x85tR"),  # past the end
        pickled(REBUILD, b"(", STORAGE, b"J\xff\xff\xff\xffK\x02\x85K\x01\x85tR"),  # before the start
        pickled(REBUILD, b"(", STORAGE, b"K\x00K\x02\x85K\x01\x85tR", b"}X\x01\x00\x00\x00aK\x01sb"),  # a state for it
        pickled(STORAGE, b"}X\x01\x00\x00\x00aK\x01sb"),
        pickled(REBUILD, b"}X\x01\x00\x00\x00aK\x01sb"),  # a state for the class itself
        pickled(b"ccollections\nOrderedDict\n", b"}X\x01\x00\x00\x00aK\x01sb"),
        pickled(STORAGE.replace(b"K\x02tQ", b"J\x00\xca\x9a\x3btQ")),  # 10⁹ numbers in 8 bytes
        pickled(STORAGE.replace(b"FloatStorage", b"QuantStorage")),
        pickled(STORAGE.replace(b"X\x01\x00\x00\x000", b"X\x04\x00\x00\x00../0")),
        pickled(b"cos\nsystem\n", b"X\x01\x00\x00\x00x\x85R"),
        pickled(b"\x82\x01"),  # an extension code
        pickled(b"Nr\xff\xff\xff\x7f"),  # a memo of 2³¹ entries
        pickled(b"\x96\x00\x00\x00\x00\x00\x01\x00\x00"),  # a bytearray of 2⁴⁰ bytes
        b"",
        b"\x80\x02K",
    ],
)
def test_what_a_pickle_can_claim_is_refused(tmp_path: Path, data: bytes) -> None:
    source = saved(tmp_path / "a.pt", {"weight": torch.ones(2)})
    with pytest.raises(ValueError, match="damaged or holds more"):
        read_weights(rewritten(source, tmp_path / "b.pt", data))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", {"weight": torch.ones(2)})
    (tmp_path / "text.pt").write_text("no archive")
    saved(tmp_path / "legacy.pt", {"weight": torch.ones(2)}, _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"weight": 1}))
    (tmp_path / "short.pt").write_bytes(source.read_bytes()[:-200])
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "empty.pt").write_bytes(empty.getvalue())
    rewritten(source, tmp_path / "huge.pt", b"\x80\x02" + b"N0" * (LARGEST_PICKLE // 2) + b"N.")
    for name in ("text", "legacy", "pickle", "short", "empty", "huge"):
        with pytest.raises(ValueError, match="no PyTorch zip archive"):
            read_weights(tmp_path / f"{name}.pt")


def compressed(source: Path, target: Path, part: str = "") -> Path:
    """With one part made a hundred million zeros."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(10**8) if part and name.endswith(part) else old.read(name))
    return target


def test_a_small_file_cannot_take_much_memory_or_time(tmp_path: Path) -> None:
    """Views that repeat each other, dictionaries inside each other twice each, and small parts that unfold."""
    source, large = (saved(tmp_path / f"{n}.pt", {"weight": torch.zeros(n)}) for n in (2, 10**6))
    view = REBUILD + b"(" + STORAGE + b"K\x00K\x02\x85K\x01\x85tR"
    with pytest.raises(ValueError, match="damaged or holds more"):
        read_weights(rewritten(source, tmp_path / "b.pt", pickled(b"(", view * 200, b"t")))
    twice = b"".join(b"}(X\x01\x00\x00\x00a" + b"h%cX\x01\x00\x00\x00bh%cuq%c" % (i, i, i + 1) for i in range(60))
    assert read_weights(rewritten(source, tmp_path / "c.pt", pickled(b"}q\x00", twice))) == {}
    with pytest.raises(ValueError, match="a storage of 1000000 numbers"):
        read_weights(compressed(large, tmp_path / "d.pt"))
    order = compressed(source, tmp_path / "e.pt", "byteorder")
    tracemalloc.start()
    with pytest.raises(ValueError, match="big-endian"):
        read_weights(order)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()
    # A name from the file goes into the log and onto the page.
    hostile = pickled(b"cos\x1b[2J\xe2\x80\xae" + b"x" * 500 + b"\nsystem\n")
    with pytest.raises(ValueError, match=r"no weight|damaged") as caught:
        read_weights(rewritten(source, tmp_path / "f.pt", hostile))
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 200
