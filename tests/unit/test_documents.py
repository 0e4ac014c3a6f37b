"""Pages must not name what is not there: files, templates, make targets. Copied version numbers must agree."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from support.paths import ROOT

PAGES = sorted(p for f in ("", ".github/**/", "docs/**/", "web/docs/**/", "tests/**/") for p in ROOT.glob(f"{f}*.md"))
FOR_DEVELOPERS = [
    ROOT / n
    for n in ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/publishing.md", "docs/security.md")
]
FOLDERS = (
    r"\.ci|\.github|adapter|benchmarks|docs|drawing|lab|locales|methods|mitigation|nodes|references|tests|tools|web"
    r"|workflows"
)
PATH = re.compile(rf"(?<![\w./<-])(?:{FOLDERS})/[\w./-]*\w")  # from the root of the repository, in text or in a command
LINK = re.compile(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
# "Template: **Name**", "templates **A**, **B** and **C**", "the template **Name**"
TEMPLATES = re.compile(r"(?i)\btemplates?:? ((?:\*\*[^*]+\*\*(?:, | and )?)+)")


def ids(pages: list[Path]) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_every_link_leads_somewhere_and_every_template_exists(page: Path) -> None:
    for pair in LINK.findall(page.read_text(encoding="utf-8")):
        address = pair[0] or pair[1]
        if re.match(r"https?://", address):
            continue
        file, _, anchor = unquote(address).partition("#")
        target = page.parent / file if file else page
        assert target.is_file(), address
        heads = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M) if anchor else [""]
        assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, address
    there = {path.stem for path in (ROOT / "workflows").glob("*.json")}
    groups = TEMPLATES.findall(page.read_text(encoding="utf-8"))
    assert {name for found in groups for name in re.findall(r"\*\*([^*]+)\*\*", found)} <= there


def test_the_readme_leads_to_every_page_and_names_templates_and_make_targets_that_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert TEMPLATES.search(text)
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {n for page in PAGES for n in re.findall(r"`make ([\w-]+)", page.read_text(encoding="utf-8"))}
    assert named and named <= targets
    seen, todo = set(), [ROOT / "README.md"]  # every page of docs is reachable from it
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        links = [a or b for a, b in LINK.findall(page.read_text(encoding="utf-8"))]
        todo += [(page.parent / link.split("#")[0]).resolve() for link in links if not link.startswith("http")]
    assert set((ROOT / "docs").glob("*.md")) <= seen


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=ids(FOR_DEVELOPERS))
def test_every_path_exists(page: Path) -> None:
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def version_in(file: str, pattern: str) -> str:
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.M)
    assert found is not None, f"{file} names no version"
    return found[1]


def read(file: str) -> dict:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


def test_copied_versions_agree() -> None:
    assert read("CITATION.cff")["version"] == version_in("pyproject.toml", r'^version = "(.+)"$')
    hooks = [hook["rev"] for hook in read(".pre-commit-config.yaml")["repos"]]
    assert hooks == ["v" + version_in("tools/dev/requirements.txt", r"^ruff==(.+)$")]
    tried = [
        one["comfyui"] for one in read(".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    ]
    oldest = version_in("pyproject.toml", r'^requires-comfyui = ">=(.+)"$')
    assert tried == [oldest, version_in("tools/dev/provision.py", r'^HOST_VERSION = "(.+)"$'), "latest"]
