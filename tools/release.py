"""What a maintainer does before publishing a version: `make release`. Nothing is uploaded.

    .host/python tools/release.py                              # write the registry's zip into dist/, and check
    .host/python tools/release.py --repository URL --raw URL   # fill in the fields that need a public address

See docs/publishing.md.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from support.paths import ROOT

IGNORE, FACTS, CHANGES = ".comfyignore", "pyproject.toml", "CHANGELOG.md"
ADDRESSES = ("Repository", "Documentation", "Issues", "Icon", "Banner")
IMAGES = {"icon": (400, 400), "banner": (1260, 540)}  # the registry's largest icon; its banners are 21:9


def git(*args: str, root: Path = ROOT) -> list[str]:
    command = ["git", "-C", str(root), "-c", "core.quotePath=false", *args]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.decode("utf-8").splitlines()


def packed(root: Path = ROOT) -> list[str]:
    """The files that the registry's own tool takes: all that git tracks, except those that .comfyignore names."""
    left_out = set(git("ls-files", "--cached", "--ignored", f"--exclude-from={root / IGNORE}", root=root))
    return [name for name in git("ls-files", root=root) if name not in left_out and (root / name).is_file()]


def build(target: Path, root: Path = ROOT) -> list[str]:
    names = packed(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(root / name, name)
    return names


def fact(name: str, root: Path = ROOT) -> str:
    """A field of pyproject.toml, or "" while it is commented out."""
    found = re.search(rf'^{name} = "(.*)"$', (root / FACTS).read_text(encoding="utf-8"), re.M)
    return found[1] if found else ""


def changes(version: str, root: Path = ROOT) -> str:
    """The section of CHANGELOG.md about a version, for the registry's page of that version."""
    text = (root / CHANGES).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""


def faults(root: Path = ROOT) -> list[str]:
    version, found = fact("version", root), []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        found.append(f"{FACTS}: version {version!r} is not three numbers")
    if not changes(version, root):
        found.append(f"{CHANGES} has no text under '## {version}'")
    if f"v{version}" in git("tag", root=root):
        found.append(f"version {version} was published already: the tag v{version} exists. Raise the version")
    if dirty := git("status", "--porcelain", root=root):
        found.append(f"files that are not committed: {len(dirty)}, for example{dirty[0][2:]}")
    if missing := [name for name in ADDRESSES if not fact(name, root)]:
        found.append(f"{FACTS} lacks {', '.join(missing)}: make release REPOSITORY=… RAW=…")
    return found


def fill_in(repository: str, raw: str, root: Path = ROOT) -> None:
    """Write the fields that need a public address. `raw`: where the files of the main branch are served one by one."""
    repository, raw = repository.rstrip("/"), raw.rstrip("/")
    values = {
        "Repository": repository,
        "Documentation": f"{repository}#readme",
        "Issues": f"{repository}/issues",
        **{name.capitalize(): f"{raw}/docs/icon/{name}.png" for name in IMAGES},
    }
    text = (root / FACTS).read_text(encoding="utf-8")
    for name, value in values.items():
        text = re.sub(rf'^(?:# )?{name} = ".*"$', f'{name} = "{value}"', text, flags=re.M)
    (root / FACTS).write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", default="", help="public address of the repository")
    parser.add_argument("--raw", default="", help="address under which its files are served one by one")
    args = parser.parse_args()
    if bool(args.repository) != bool(args.raw):
        parser.error("give --repository and --raw together")
    if args.repository:
        fill_in(args.repository, args.raw)
        print(f"{FACTS} now has the addresses: check it, commit it, and run `make release` again")
        return 0
    # Without the version: a dot in the name of the folder it is unpacked into hides the help's images.
    target = ROOT / "dist" / f"{fact('name')}.zip"
    names = build(target)
    target.with_suffix(".txt").write_text(changes(fact("version")) + "\n", encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {len(names)} files, {target.stat().st_size / 1e6:.2f} MB")
    print(f"{target.with_suffix('.txt').relative_to(ROOT)}: what {CHANGES} says about this version")
    for fault in (found := faults()):
        print(f"NOT READY: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
