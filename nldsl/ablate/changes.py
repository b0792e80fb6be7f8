"""What differs in meaning between two complete specs, in a few lines of words."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import takewhile

MOST = 6
"""Lines about one variant; what is more is counted."""

_WIDE = 48
_HEADER = re.compile(r"(memory|optimizer|block|model|train|chain|level) (\w+)(.*) \{")
_FIELD = re.compile(r"([a-z_]\w*)(?: = |: )(.*)", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:\d[\d_]*(?:\.\d+)?(?:e[-+]?\d+)?|\w+(?:\.\w+)*|\S)")
_CALL = re.compile(r"([\w.]+)\(.*\)", re.DOTALL)

Part = dict[str, str]
"""Values by name; `""` holds nothing."""


def in_words(before: Iterable[str], after: Iterable[str], most: int = MOST) -> tuple[str, ...]:
    """How `after` differs from `before`, both as `nldsl.api.expand.lines` gives them.

    >>> old = ["memory M(dim, n = 2) {", "rate = 1", "keep = x |> conv(4) |> sigmoid", "}"]
    >>> new = ["memory M(dim, n = 4) {", "keep = x |> sigmoid", "}"]
    >>> in_words(old, new)
    ('M.n: `2` -> `4`', 'M.rate is gone', 'M.keep loses `conv(4)`')
    """
    before, after = list(before), list(after)
    rules = {f[2] for line in (*before, *after) if (f := _HEADER.fullmatch(line)) and f[1] == "optimizer"}
    lines = _unsaid(list(_differences(parts(before), parts(after))), rules)
    return tuple(lines) if len(lines) <= most else (*lines[: most - 1], f"and {len(lines) - most + 1} more")


def _unsaid(lines: list[str], rules: Container[str]) -> list[str]:
    """Without declarations that come or go because another line names them, as all rules do."""
    kept: list[str] = []
    for line in lines:
        name, _, fate = line.partition(" is ")
        named = re.compile(rf"`.*\b{re.escape(name)}\b")
        follows = name in rules or any(named.search(other) for other in lines)
        if "." in name or fate not in ("gone", "new") or not follows:
            kept.append(line)
    return kept


def parts(lines: Iterable[str]) -> dict[str, Part]:
    """The declarations and levels of a complete spec by path, each with its values in order."""
    found: dict[str, Part] = {}
    path: list[str] = []
    for line in lines:
        if line == "}":
            path.pop()
            continue
        header = _HEADER.fullmatch(line)
        if header is None:
            _put(found.setdefault(".".join(p for p in path if p), {}), line)
            continue
        kind, name, rest = header.groups()
        path.append("" if kind == "chain" else name)  # a level's path leaves the word of its chain out
        part = found.setdefault(".".join(p for p in path if p), {})
        if kind == "chain":
            part["chain"] = name + rest
        for parameter in _split(rest.strip()[1:-1]) if rest.startswith("(") and kind != "chain" else ():
            named, equals, value = parameter.partition(" = ")
            part[named] = value if equals else ""
    return found


def _put(part: Part, line: str) -> None:
    field = _FIELD.fullmatch(line)
    name, value = (field[1], field[2]) if field is not None and field[1] != "x" else (line, line)
    while name in part:  # a pipeline may have one line twice
        name += " "
    part[name] = value


def _split(text: str) -> Iterator[str]:
    """The parts of a list between commas that stand in no bracket."""
    depth, begin = 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    if text[begin:].strip():
        yield text[begin:].strip()


def _differences(before: Mapping[str, Part], after: Mapping[str, Part]) -> Iterator[str]:
    for path, old in before.items():
        if path not in after:
            if not _inside_of_one_gone(path, before, after):
                yield f"{path} is gone"
            continue
        yield from _values(path, old, after[path])
        shared = [one for one in _children(path, before) if one in after]
        moved = [one for one in _children(path, after) if one in before]
        if shared != moved:
            yield f"{path} is in the order {', '.join(one.rpartition('.')[2] for one in moved)}"
    for path in after:
        if path not in before and not _inside_of_one_gone(path, after, before):
            yield f"{path} is new"


def _inside_of_one_gone(path: str, here: Mapping[str, Part], there: Mapping[str, Part]) -> bool:
    owner = path.rpartition(".")[0]
    return bool(owner) and owner in here and owner not in there


def _children(path: str, parts_: Mapping[str, Part]) -> list[str]:
    return [one for one in parts_ if one.rpartition(".")[0] == path] if path else []


def _values(path: str, old: Part, new: Part) -> Iterator[str]:
    for name, value in old.items():
        where = f"{path}.{name}" if value != name.strip() else path
        if name not in new:
            yield f"{where} is gone" if where != path else f"{path} loses `{_short(value)}`"
        elif new[name] != value:
            yield _change(where, value, new[name])
    for name, value in new.items():
        if name not in old:
            plain = value == name.strip()
            yield f"{path} gains `{_short(value)}`" if plain else f"{path}.{name} is new: `{_short(value)}`"


def _change(where: str, old: str, new: str) -> str:
    """One value that differs: what it loses or gains where that is all, else both."""
    a, b = _TOKEN.findall(old), _TOKEN.findall(new)
    head = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    rest = min(len(a), len(b)) - head
    pairs = zip(a[::-1][:rest], b[::-1][:rest], strict=True)
    tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    lost, gained = _whole(a, head, tail), _whole(b, head, tail)
    part = not (lost + gained).startswith("(")  # arguments alone say nothing
    if part and not gained:
        return f"{where} loses `{_short(lost)}`"
    if part and not lost:
        return f"{where} gains `{_short(gained)}`"
    was, now = _CALL.fullmatch(old), _CALL.fullmatch(new)
    if max(len(old), len(new)) > _WIDE and was and now and was[1] != now[1]:
        old, new = f"{was[1]}(...)", f"{now[1]}(...)"
    elif max(len(old), len(new)) > _WIDE:
        old, new = _around(a, head, tail), _around(b, head, tail)
    return f"{where}: `{_short(old)}` -> `{_short(new)}`"


def _whole(tokens: list[str], head: int, tail: int) -> str:
    """The tokens between `head` and `tail`, without the joint that a part leaves behind."""
    text = "".join(tokens[head : len(tokens) - tail]).strip()
    return text.removeprefix("|>").removesuffix("|>").removesuffix("|").strip(" ,")


def _around(tokens: list[str], head: int, tail: int) -> str:
    """The tokens between `head` and `tail` with two before and one behind."""
    begin, end = max(head - 2, 0), min(len(tokens) - tail + 1, len(tokens))
    text = "".join(tokens[begin:end]).strip()
    return f"{'... ' if begin else ''}{text}{' ...' if end < len(tokens) else ''}"


def _short(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= _WIDE else f"{one[: _WIDE - 4].rpartition(' ')[0].rstrip(' ,')} ..."
