"""The verbs: where each lives, what it needs and what help says of it.

Nothing here imports a handler, so that `nldsl --help` stays quick.  A verb is listed only when the
modules it works with are there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb; its click command is `nldsl.cli.verbs.<name>.command`."""

    name: str
    section: str
    summary: str
    needs: tuple[str, ...] = ()


VERBS: tuple[Verb, ...] = (
    Verb("init", "authoring", "Write a starter spec that trains on a CPU.", ("nldsl.api",)),
    Verb(
        "check", "authoring", "Find mistakes in specs, and mend those with one safe answer.", ("nldsl.api",)
    ),
    Verb("fmt", "authoring", "Bring .nl files into their one canonical form.", ("nldsl.syntax.fmt",)),
    Verb("expand", "authoring", "Print a spec with every default and import written out.", ("nldsl.api",)),
    Verb(
        "convert",
        "authoring",
        "Turn .nl into YAML, or YAML into .nl.",
        ("nldsl.syntax.yaml", "nldsl.syntax.fmt"),
    ),
    Verb("explain", "authoring", "Explain a finding's code, or how a spec is computed."),
    Verb("schema", "authoring", "Print the JSON Schema of the document.", ("nldsl.document.model",)),
    Verb("graph", "seeing", "Draw the level graph of a spec.", ("nldsl.api", "nldsl.levels.draw")),
    Verb("compile", "building", "Write a folder of PyTorch code that runs without nldsl.", ("nldsl.api",)),
    Verb(
        "verify",
        "building",
        "Probe a compiled folder on random data.",
        ("nldsl.run.verify", "nldsl.run.promises"),
    ),
    Verb("train", "running", "Train a spec or a compiled folder.", ("nldsl.api", "nldsl.run.train")),
    Verb("eval", "running", "Measure a trained folder on held-out data.", ("nldsl.run.evaluate",)),
    Verb("generate", "running", "Continue a text with a trained folder.", ("nldsl.run.generate",)),
    Verb("ablate", "studying", "Plan, run and report ablations.", ("nldsl.api", "nldsl.ablate.plan")),
    Verb("diff", "studying", "Show what differs in meaning between two specs.", ("nldsl.api",)),
    Verb("doctor", "tools", "Report on this installation and machine."),
    Verb("completion", "tools", "Print a shell completion script."),
    Verb("version", "tools", "Print the version."),
)


@cache
def present(module: str) -> bool:
    """Whether a module below `nldsl` is there.  Neither it nor its parents are imported."""
    if module in sys.modules:
        return True
    name, *rest = module.split(".")
    where = __import__(name).__path__
    for part in rest:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, where)
        if spec is None:
            return False
        where = spec.submodule_search_locations or []
    return True


def available() -> dict[str, Verb]:
    """The verbs whose modules are there, in the order of help."""
    return {verb.name: verb for verb in VERBS if all(present(module) for module in verb.needs)}
