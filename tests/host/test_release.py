"""What the Comfy registry is given: the facts in pyproject.toml, the zip, and nothing that has to be installed."""

import ast
import re
import shutil
import sys
from pathlib import Path

import pytest
from comfy_config.config_parser import extract_node_configuration
from PIL import Image

from support.paths import ROOMS, ROOT, SOURCES
from support.server import find_host
from tools import release

GITHUB_LIKE = ("https://code.example/artist/memorization-guard/", "https://raw.example/artist/memorization-guard/main")
RUN_TIME = ("__init__.py", "LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "requirements.txt")
FOLDERS = ("locales", "subgraphs", "web", "workflows", *ROOMS)
tracked = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the zip is made of what git tracks")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", "CHANGELOG.md", ".comfyignore"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "Bild é.txt").write_text("a name that git would quote", encoding="utf-8")
    for command in (["init", "-q"], ["add", "."]):
        release.git(*command, root=tmp_path)
    commit(tmp_path)
    return tmp_path


def commit(root: Path) -> None:
    release.git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qam", "as it is", root=root)


def edit(file: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, by, file.read_text(encoding="utf-8"), flags=re.M)
    assert count == 1
    file.write_text(text, encoding="utf-8")


def test_a_public_address_completes_it(checkout: Path) -> None:
    assert "Bild é.txt" in release.packed(checkout)
    release.fill_in(*GITHUB_LIKE, root=checkout)
    read = extract_node_configuration(str(checkout))
    assert read.project.urls.repository == GITHUB_LIKE[0].rstrip("/")
    assert read.project.urls.documentation and read.project.urls.issues
    for name, address in (("icon", read.tool_comfy.icon), ("banner", release.fact("Banner", checkout))):
        assert address.startswith(GITHUB_LIKE[1])
        with Image.open(ROOT / address.removeprefix(f"{GITHUB_LIKE[1]}/")) as image:
            assert image.size == release.IMAGES[name]
    assert release.IMAGES["icon"] == (400, 400)  # square, and no larger
    assert release.IMAGES["banner"][0] * 9 == release.IMAGES["banner"][1] * 21


def test_what_is_missing_is_reported(checkout: Path) -> None:
    assert [fault.split(":")[0] for fault in release.faults(checkout)] == [
        "pyproject.toml lacks Repository, Documentation, Issues, Icon, Banner"
    ]
    release.fill_in(*GITHUB_LIKE, root=checkout)
    assert "files that are not committed: 1, for example pyproject.toml" in release.faults(checkout)
    commit(checkout)
    assert release.faults(checkout) == []
    release.git("tag", f"v{release.fact('version', checkout)}", root=checkout)
    assert ["was published" in fault for fault in release.faults(checkout)] == [True]
    edit(checkout / "pyproject.toml", r'^version = ".*"$', 'version = "99.0"')
    commit(checkout)
    assert len(release.faults(checkout)) == 2  # three numbers, and an entry in the changelog


@tracked
def test_the_zip_has_what_runs_and_nothing_else_and_is_small(tmp_path: Path) -> None:
    names = release.packed()
    assert set(RUN_TIME) <= set(names)
    for folder in FOLDERS:
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert {name for name in here if "__pycache__" not in name} == {n for n in names if n.startswith(f"{folder}/")}
    rest = {name for name in names if not name.startswith(tuple(f"{folder}/" for folder in FOLDERS))}
    assert {name for name in rest - set(RUN_TIME) if not re.fullmatch(r"docs/\w+\.md", name)} == set()
    release.build(tmp_path / "pack.zip")
    assert (tmp_path / "pack.zip").stat().st_size < 2_000_000


def test_the_host_reads_what_the_registry_asks_for_and_nothing_has_to_be_installed() -> None:
    read = extract_node_configuration(str(ROOT))
    project, comfy = read.project, read.tool_comfy
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", project.name)
    assert "comfy" not in project.name and len(project.name) < 100
    assert re.fullmatch(r"\d+\.\d+\.\d+", project.version)
    assert release.changes(project.version)
    assert project.description and project.requires_python == ">=3.10"
    assert "Apache License" in (ROOT / project.license.file).read_text(encoding="utf-8")
    assert project.supported_os == ["OS Independent"]
    makers = ("NVIDIA CUDA", "AMD ROCm", "Intel Arc", "Apple Metal")
    assert project.supported_accelerators == [f"GPU :: {maker}" for maker in makers]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project.supported_comfyui_version)
    assert comfy.publisher_id and comfy.display_name == "Memorization Guard"
    assert comfy.web is None and comfy.includes == [] and project.dependencies == []
    wanted = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") for line in wanted)
    lines = (find_host() / "requirements.txt").read_text(encoding="utf-8").splitlines()
    has = {re.split(r"[=<>~!\[ ]", line)[0].lower() for line in lines}
    has = {"PIL" if name == "pillow" else name for name in has} | {path.stem for path in find_host().iterdir()}
    for file in SOURCES:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0}
        top = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
        assert top <= has, file
