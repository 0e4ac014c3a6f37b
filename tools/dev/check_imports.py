"""`make lint`: the arrows between the pack's packages run one way; the contracts are in pyproject.toml."""

import sys

from importlinter.cli import lint_imports

from support.paths import PACK, ROOT


def main() -> int:
    # The pack is imported by its folder's name, whatever that is: give the linter the name that tests use.
    folder = ROOT / ".host" / "lint"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / PACK
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    sys.path.insert(0, str(folder))
    return lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_logo=True)


if __name__ == "__main__":
    sys.exit(main())
