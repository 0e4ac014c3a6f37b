"""Files that somebody else made: no traceback, no gigabyte of memory, nothing touched elsewhere, one image lost.

And while any node runs, our code opens no connection, starts no program, runs no code, and writes only where it may.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support import every_node, graphs
from support.every_node import EVERY_NODE, SET
from support.executor import Host
from support.graphs import node
from support.hostile_files import COLOUR, EXIF, captions, detectors, giant, image, images, reference_files
from support.hostile_runs import FUZZ, GIGABYTE, Tally, Watch, files, judge, memory, plan, prompt_of

FOLDER = "hostile"
OURS = (f"input/{FOLDER}", "models/memorization_references", "models/copy_detection", "temp")
pytestmark = [pytest.mark.timeout(600 + FUZZ), pytest.mark.usefixtures("quiet")]
Limited = Callable[[], Any]
READ = {"n": graphs.from_folder(FOLDER, 64)}
SIZES = [(13_370, 13_370), (65_535, 2730), (2730, 65_535), (4090, 43_700)]  # Pillow opens 178,956,970 pixels at most
GIANTS = [(mode, size) for mode in COLOUR for size in SIZES] if FUZZ else [("RGBA", (6000, 4000)), ("1", SIZES[1])]


@pytest.fixture(scope="module")
def whole(host: Host, vae: Any) -> dict[str, Any]:
    return every_node.prepare(host, vae)


@pytest.fixture(scope="module")
def watch(host: Host) -> Watch:
    return Watch(host.base)


@pytest.fixture
def limited(host: Host, whole: dict[str, Any], watch: Watch) -> Iterator[Limited]:
    """Contexts for runs; the test fails if one of them took too much memory or touched anything elsewhere."""
    before, peaks = files(host.base, OURS), []

    @contextmanager
    def inside() -> Iterator[None]:
        with memory(peaks), watch.watching():
            yield
        assert peaks[-1] < GIGABYTE and watch.seen == [], (peaks[-1], watch.seen)

    yield inside
    assert files(host.base, OURS) == before
    print(f"\n{len(peaks)} runs took at most {max(peaks) / 1e6:.0f} MB more than there was")


@pytest.fixture
def folder(host: Host) -> Iterator[Path]:
    made = host.base / "input" / FOLDER
    made.mkdir()
    (made / "a.png").write_bytes(image("PNG", "RGB", 0))
    yield made
    shutil.rmtree(made)


def test_images_and_captions(host: Host, whole: dict, tally: Tally, limited: Limited, folder: Path) -> None:
    @plan(0.4)
    @given(images(), captions())
    def run(image: tuple[str, bytes], caption: tuple[str, bytes]) -> None:
        for file in folder.glob("b.*"):
            file.unlink()
        for ending, content in (image, caption):
            (folder / f"b{ending}").write_bytes(content)

        def read() -> None:
            with limited():
                count, report = every_node.run(host, READ, whole)["n"][1:]
            assert count == 2 or "b." in report, report

        judge(read, READ, tally, (image, caption))
        assert tally.count["ran"] == sum(tally.count.values()), (tally.line(), image, caption)

    run()
    assert not tally.wrong, "\n\n".join(tally.wrong.values())


def test_detectors_and_sets(host: Host, whole: dict, tally: Tally, limited: Limited) -> None:
    """A set is loaded, then compared with, then steered by."""
    models = host.base / "models"
    set_, detector = models / "memorization_references" / "hostile.safetensors", models / "copy_detection"
    kinds = {"load": "MG_LoadReferences", "check": "MG_CopyCheck", "steer": "MG_AMGGuidance"}
    contents = reference_files(set_.with_name(f"{SET}.safetensors"))

    def tried(prompt: dict[str, Any], what: Any) -> None:
        def load() -> None:
            with limited():
                every_node.run(host, prompt, whole)

        judge(load, prompt, tally, what)

    @plan(0.15)
    @given(contents, st.sampled_from(list(kinds)), detectors())
    def run(content: bytes, use: str, made: tuple[str, bytes]) -> None:
        set_.write_bytes(content)
        put = {"references": ["loaded", 0]} if use != "load" else {"file": set_.name}
        tried({**prompt_of(kinds[use], put)[0], "loaded": node("MG_LoadReferences", file=set_.name)}, content)
        file = detector / f"hostile{made[0]}"
        file.write_bytes(made[1])
        tried({"n": node("MG_LoadCopyDetector", file=file.name)}, made[0])
        file.unlink()

    run()
    assert not tally.wrong, "\n\n".join(tally.wrong.values())


@pytest.mark.parametrize(("mode", "size"), GIANTS)
def test_an_image_as_large_as_is_allowed(host: Host, whole: dict, limited: Limited, folder, mode: str, size) -> None:
    giant(folder / "b.png", mode, *size, EXIF[2])
    with limited():
        assert every_node.run(host, READ, whole)["n"][1] == 2


def test_running_nodes_open_no_door(host: Host, whole: dict[str, Any], watch: Watch) -> None:
    saved = host.base / "models" / "memorization_references" / f"{SET}.safetensors"
    before = saved.stat().st_mtime_ns
    with watch.watching():
        for prompt in EVERY_NODE.values():
            every_node.run(host, prompt, whole)
    assert saved.stat().st_mtime_ns > before, "a file was written where it may be"
    assert watch.seen == []


def test_a_door_is_seen(host: Host, watch: Watch, tmp_path: Path) -> None:
    module = host.module("memorization_guard", "drawing.node_views")
    doors = ["open(path, 'w').close()", "exec('1')", "marshal.loads(marshal.dumps(1))", "subprocess.run(['true'])"]
    source = "import marshal, subprocess\ndef go(path):\n" + "".join(f"    {door}\n" for door in doors)
    scope: dict[str, Any] = {}
    exec(compile(source, module.__file__, "exec"), scope)  # noqa: S102 - in the test's own words
    with watch.watching():
        scope["go"](str(tmp_path / "elsewhere"))
    said = " ".join(watch.seen)
    for door in ("open", "exec", "marshal.loads", "subprocess.Popen"):
        assert door in said
