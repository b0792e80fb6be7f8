"""Linking files: which names a file can see, its own and imported ones."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field

from nldsl.diagnostics.model import Diagnostic, Source, Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import model as doc
from nldsl.records import record
from nldsl.resolve.findings import Findings

Reader = Callable[[str], Source]
"""Hands over the text of a file by its path relative to the spec's folder; raises `OSError` or
`UnicodeError`.
"""

Parse = Callable[[Source], tuple[doc.Document, list[Diagnostic]]]


@record
class Library:
    """The standard library: names and, for each, the text that declares it.

    `rules` are those of the names that every file knows without importing them, as learning rules.
    """

    names: tuple[str, ...]
    read: Callable[[str], Source]
    rules: tuple[str, ...] = ()


@dataclass(slots=True)
class Rules:
    """The rules of the library; each is read when it is first named."""

    names: tuple[str, ...] = ()
    load: Callable[[str], Module] | None = None
    loaded: dict[str, Module] = field(default_factory=dict)

    def find(self, name: str) -> tuple[doc.Optimizer, Module] | None:
        """The declaration of a rule and the module it stands in."""
        if self.load is None or name not in self.names:
            return None
        module = self.loaded[name] = self.load(name)
        found = module.document.find(name)
        return (found, module) if isinstance(found, doc.Optimizer) else None


@dataclass(slots=True)
class Module:
    """One file: its document, and the modules its imports lead to."""

    path: str
    source: Source
    document: doc.Document
    imported: dict[str, tuple[Module, str]] = field(default_factory=dict)
    aliases: dict[str, Module] = field(default_factory=dict)
    library_names: tuple[str, ...] = ()
    rules: Rules = field(default_factory=Rules)

    def lookup(self, name: str) -> tuple[object, Module] | None:
        """The declaration a name means in this file and the module it stands in."""
        head, _, rest = name.partition(".")
        if rest and head in self.aliases:
            return self.aliases[head].lookup(rest)
        if name in self.imported:
            module, original = self.imported[name]
            return module.lookup(original)
        found = self.document.find(name)
        return (found, self) if found is not None else None

    def rule(self, name: str) -> tuple[doc.Optimizer, Module] | None:
        """The `optimizer` that a name means as a learning rule: the file's own or imported one, then the
        library's.
        """
        found = self.lookup(name)
        if found is not None and isinstance(found[0], doc.Optimizer):
            return found[0], found[1]
        return self.rules.find(name)

    def below(self, name: str) -> tuple[object, Module] | None:
        """The declaration that a name means in the files that this one imports, and in those that they do.

        None where there is none, or where two of them mean different things by it.
        """
        found: dict[int, tuple[object, Module]] = {}
        seen = {id(self)}
        waiting = [m for m, _ in self.imported.values()] + list(self.aliases.values())
        while waiting:
            module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            one = module.lookup(name)
            if one is not None:
                found[id(one[0])] = one
            waiting += [*(m for m, _ in module.imported.values()), *module.aliases.values()]
        return next(iter(found.values())) if len(found) == 1 else None

    def names(self) -> list[str]:
        """Every name the file can see."""
        own = [d.name for d in self.document.declarations]
        aliased = [f"{a}.{d.name}" for a, m in self.aliases.items() for d in m.document.declarations]
        return own + list(self.imported) + aliased


class Linker:
    """Reads imports depth first and finds cycles."""

    def __init__(self, read: Reader | None, parse: Parse, library: Library, findings: Findings) -> None:
        self.read, self.parse, self.library, self.findings = read, parse, library, findings
        self.done: dict[str, Module] = {}
        self.rules = Rules(library.rules, self._std)
        self.stack: list[tuple[str, Span | None]] = []

    def link(self, path: str, source: Source, document: doc.Document) -> Module:
        """The module of a document with everything it imports."""
        module = Module(path, source, document, library_names=self.library.names, rules=self.rules)
        self.done[path] = module
        self.stack.append((path, None))
        for item in document.imports:
            self._import(module, item)
        self.stack.pop()
        return module

    def _import(self, module: Module, item: doc.Import) -> None:
        if item.source == "std":
            for name in item.names:
                self._from_std(module, item, name)
            return
        target = self._file(module, item)
        if target is None:
            return
        if item.alias is not None:
            module.aliases[item.alias] = target
        for name in item.names:
            if target.document.find(name) is None and name not in target.imported:
                self._unknown(item, name, [d.name for d in target.document.declarations])
                continue
            module.imported[name] = (target, name)

    def _from_std(self, module: Module, item: doc.Import, name: str) -> None:
        if name not in self.library.names:
            self._unknown(item, name, list(self.library.names))
            return
        module.imported[name] = (self._std(name), name)

    def _std(self, name: str) -> Module:
        """The module of a part of the library."""
        key = f"std/{name}"
        if key not in self.done:
            source = self.library.read(name)
            document, found = self.parse(source)
            self.findings.items += [d for d in found if d.severity == "error"]
            self.link(key, source, document)
        return self.done[key]

    def _unknown(self, item: doc.Import, name: str, candidates: list[str]) -> None:
        near = nearest(name, candidates)
        hint = (
            f"maybe `{near[0]}`"
            if near
            else f"it has {', '.join(f'`{c}`' for c in sorted(candidates)) or 'no declaration'}"
        )
        self.findings.add(
            "NL0013", f"`{item.source}` does not declare `{name}`", item.where(), "imported here", help=hint
        )

    def _file(self, module: Module, item: doc.Import) -> Module | None:
        folder = posixpath.dirname(module.path)
        path = posixpath.normpath(posixpath.join(folder, item.source))
        if posixpath.isabs(item.source) or path.startswith("..") or ":" in item.source:
            self.findings.add(
                "NL0012",
                f"the import `{item.source}` leaves the folder of the spec",
                item.where(),
                "points outside",
                help="copy the file beside the spec, and import it by its path from there",
            )
            return None
        on_stack = [p for p, _ in self.stack]
        if path in on_stack:
            ring = [*on_stack[on_stack.index(path) :], path]
            self.findings.add(
                "NL0010",
                "the imports form a cycle",
                item.where(),
                "closes the cycle",
                notes=(" -> ".join(ring),),
                help="move what both files need into a third one",
            )
            return None
        if path in self.done:
            return self.done[path]
        if self.read is None:
            self.findings.add(
                "NL0011",
                f"the file `{item.source}` cannot be read here",
                item.where(),
                "imported here",
                help="check the spec from a file, so that its imports can be found",
            )
            return None
        try:
            source = self.read(path)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or (
                "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
            )
            self.findings.add(
                "NL0011",
                f"the file `{item.source}` cannot be read: {reason}",
                item.where(),
                "imported here",
                help="give the path relative to the file that imports it",
            )
            return None
        document, found = self.parse(source)
        self.findings.items += found
        return self.link(path, source, document)
