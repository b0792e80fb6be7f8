"""Write the list of packages in pyproject.toml anew from the tree.

    python scripts/sync_packages.py

setuptools needs the list by hand because `nldsl.codegen` and `nldsl.grammar` live in top-level
folders; tests/packaging/test_layout.py fails when the list and the tree differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOMES = {"nldsl": "nldsl", "nldsl.codegen": "codegen", "nldsl.grammar": "grammar"}
PACKAGES = re.compile(r"^packages = \[\n.*?^\]$", re.MULTILINE | re.DOTALL)


def packages_in_tree(root: Path) -> list[str]:
    """Dotted names of all folders with an `__init__.py`; the links inside nldsl/ are not followed."""
    found = {
        ".".join([name, *init.parent.relative_to(root / folder).parts])
        for name, folder in HOMES.items()
        for init in (root / folder).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in init.parents)
    }
    return sorted(found)


def with_packages(settings: str, packages: list[str]) -> str:
    """The text of pyproject.toml with its list of packages replaced."""
    lines = "".join(f'  "{name}",\n' for name in packages)
    text, count = PACKAGES.subn(f"packages = [\n{lines}]", settings)
    if count != 1:
        message = f"pyproject.toml holds {count} lists of packages, not one"
        raise ValueError(message)
    return text


def main() -> int:
    """Rewrite pyproject.toml where it stands."""
    file = ROOT / "pyproject.toml"
    packages = packages_in_tree(ROOT)
    file.write_text(with_packages(file.read_text(encoding="utf-8"), packages), encoding="utf-8")
    print(f"{len(packages)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
