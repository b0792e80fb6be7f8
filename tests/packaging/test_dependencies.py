"""What is imported is declared, what is declared is imported, and constraints.txt pins all of it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CODE = ("nldsl", "codegen", "grammar")
# Beside the package: the runtime's files import each other, and what the compiler writes, by plain names.
RUNTIME = {path.stem for path in (ROOT / "codegen" / "runtime").glob("*.py")}
OURS = {"nldsl", "kernels", "model", "settings", *RUNTIME}


def canonical(name: str) -> str:
    """The name of a distribution as the package index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Distribution to version, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): version for name, version in pairs}


def requirements(*groups: str) -> list[Requirement]:
    """The project's requirements; with no group, those of a plain install."""
    if not groups:
        return [Requirement(text) for text in PROJECT["dependencies"]]
    return [Requirement(text) for group in groups for text in PROJECT["optional-dependencies"][group]]


def third_party_imports() -> dict[str, str]:
    """Distribution to one place that imports it, for everything under the package's folders."""
    owners = packages_distributions()
    found: dict[str, str] = {}
    for path in (p for folder in CODE for p in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top in sys.stdlib_module_names or top in OURS:
                    continue
                # Namespace packages have several owners: take the one whose name says it.
                dotted = canonical(".".join(name.split(".")[:2]))
                candidates = [canonical(owner) for owner in owners.get(top, [top])]
                owner = dotted if dotted in candidates else candidates[0]
                found.setdefault(owner, path.relative_to(ROOT).as_posix())
    return found


def test_imports_are_declared() -> None:
    # Extras are imported where they are asked for, and a finding says what to install.
    asked = requirements("pretrained", "ray", "slurm")
    declared = {canonical(requirement.name) for requirement in [*requirements(), *asked]}
    missing = {name: place for name, place in third_party_imports().items() if name not in declared}
    assert missing == {}


def test_declared_packages_are_imported() -> None:
    declared = {canonical(requirement.name) for requirement in requirements()}
    assert declared - set(third_party_imports()) == set()


def test_constraints_pin_every_requirement_within_its_bounds() -> None:
    pinned = pins()
    extras = ("dev", "docs", "oracles", "pretrained", "ray", "slurm")
    for requirement in [*requirements(), *requirements(*extras)]:
        version = pinned.get(canonical(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not admit {version}"


def test_torch_is_pinned_without_a_build_tag() -> None:
    """`==2.13.0` takes the CPU file where one is offered, and any other build elsewhere."""
    assert Version(pins()["torch"]) == Version("2.13.0")
