"""Reference files that nobody should trust: damaged bytes, and well-formed files with odd contents."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

DTYPES = {"F16": 2, "F32": 4, "F64": 8, "BF16": 2, "U8": 1, "I8": 1, "I64": 8, "BOOL": 1}
NUMBERS = ["-1", "0", "1", "NaN", "1e999", "9" * 400]
JSON = ["[]", "{", "null", "[4,8,8]", "[[1]]", '["a"]', "[1e999]", "[-4,-8,8]", "[256]"]
ODD_TEXT = st.sampled_from(["", "x", "latent", "nL2", "descriptor", *NUMBERS, *JSON])
ODD_LINES = [b"", b"[]", b"{}", b"null", b"\xff\xfe", b'["a"]', b'["a", 1]', b"[" * 30000, b'"x"', b'["\\ud800"]']
ODD_LINES += [b'["<script>alert(1)</script>"]', b'["' + b"x" * 100000 + b'"]']


def pack(facts: Any, tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file; `tensors`: name -> (dtype, shape, data)."""
    header: dict[str, Any] = {} if facts is None else {"__metadata__": facts}
    body = b""
    for name, (kind, shape, data) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body


def parts(content: bytes) -> tuple[dict[str, str], dict[str, tuple[str, list[int], bytes]]]:
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    facts = header.pop("__metadata__")
    return facts, {n: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for n, t in header.items()}


@st.composite
def reference_files(draw: Callable, whole: Path) -> bytes:
    """The file `whole` with damaged bytes, or a well-formed one with one to three odd parts."""
    content = whole.read_bytes()
    kind = draw(st.sampled_from(["bytes", "header", "parts", "parts", "parts", "parts"]))
    if kind == "bytes":
        at, byte = draw(st.integers(0, len(content) - 1)), draw(st.binary(min_size=1, max_size=9))
        ways = [byte, content[:at], content[:at] + byte[:1] + content[at + 1 :], content + byte]
        return draw(st.sampled_from(ways))
    if kind == "header":
        sizes = [0, 1, 8, len(content), 100_000_001, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
        return struct.pack("<Q", draw(st.sampled_from(sizes))) + content[8:]
    facts, tensors = parts(content)
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            name = draw(st.sampled_from([*sorted(facts), "more"]))
            facts[name] = draw(ODD_TEXT)
            if draw(st.integers(0, 4)) == 0:
                del facts[name]
        else:
            name = draw(st.sampled_from(["features", "captions", "names", "thumbnails", "more"]))
            tensors[name] = draw(_tensor(name))
            if draw(st.integers(0, 4)) == 0:
                del tensors[name]
    return pack(facts, tensors)


@st.composite
def _tensor(draw: Callable, name: str) -> tuple[str, list[int], bytes]:
    if name in ("captions", "names") and draw(st.booleans()):
        data = draw(st.sampled_from(ODD_LINES))
        return "U8", [len(data)], data
    whole = {"thumbnails": [[1, 16, 16, 3], [1, 16, 16, 1], [1, 0, 16, 3], [1, 1, 1, 3]], "features": [[1, 256]]}
    shapes = [*whole.get(name, []) * 3, [], [0], [1], [2, 256], [1, 257], [0, 256], [1, 4, 8, 8], [1, 0]]
    usual = {"thumbnails": "U8", "features": "F16"}.get(name, "U8")
    shape = draw(st.sampled_from(shapes))
    kind = draw(st.sampled_from([usual, usual, usual, *sorted(DTYPES)]))
    count = DTYPES[kind]
    for side in shape:
        count *= side
    fill = draw(st.sampled_from([b"\x00", b"\xff", b"\x3c", b"\x7c", b"\x7e"]))
    return kind, shape, fill * count
