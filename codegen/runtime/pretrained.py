"""Weights that come from a `safetensors` file, and weights that go into one.

What is taken is said tensor by tensor (`Report`), and nothing is guessed: what is missing, ambiguous, of
another shape or left over is an error that says how to mend it, unless the settings ask for a partial start.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from finite import all_finite
from schedule import Pretrained, Settings, UserError, matches

HERE = Path(__file__).resolve().parent
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Customary names of matrices that stand one above the other in some files."""
DERIVED = "rotary_emb.inv_freq"
"""How the names of tensors end that some files have and that follow from the sizes of the model."""
_NUMBER = re.compile(r"\.(\d+)\.")
KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Taken:
    """One weight: the parameter, the tensor that it begins as, its shape `[rows, columns]`, and how."""

    parameter: str
    tensor: str
    shape: tuple[int, ...]
    how: str = ""


@dataclass
class Report:
    """What a start took from its file: weights, weights that begin as a new model's do, tensors left over."""

    file: str
    kind: str = ""
    taken: list[Taken] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people: one line for all blocks of a kind."""
        numbers = sum(torch.Size(one.shape).numel() for one in self.taken)
        rows = [
            (one.parameter, f"{one.tensor}  {list(one.shape)}{', ' + one.how if one.how else ''}")
            for one in self.taken
        ]
        merged = _merged(rows)
        width = max((len(left) for left, _ in merged), default=0)
        return [
            f"{self.file}: {len(self.taken)} tensors, {numbers:,} numbers, {self.kind}",
            *(f"  {left:<{width}}  <- {right}" for left, right in merged),
            *(f"  begins anew: {left}" for left, _ in _merged([(n, "") for n in self.fresh])),
            *(f"  not used: {left}" for left, _ in _merged([(n, "") for n in self.unused])),
        ]


def start_from_files(model: nn.Module, settings: Settings, folder: Path = HERE) -> list[Report]:
    """Put the weights of all files into `model`; one report for each file.

    Raises `UserError` (kind `pretrained`) before any weight has changed if a file cannot be read, or does
    not hold what the model needs.
    """
    reports: list[Report] = []
    chosen: list[tuple[nn.Parameter, Tensor]] = []
    covered: set[str] = set()  # weights, and by file the tensors that they took
    used: dict[Path, set[str]] = {}
    for start in sorted(settings.pretrained, key=lambda one: not one.path):
        path = find(start.file, folder)
        with _opened(path) as file:
            begun = _Start(model, start, file, path, covered, used.setdefault(path, set()))
            report, weights = begun.take()
        reports.append(report)
        chosen += weights
        covered |= {one.parameter for one in report.taken}
        used[path] |= begun.used
    with torch.no_grad():
        for parameter, values in chosen:
            parameter.copy_(values)
    return reports


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the weights of `model` to a `safetensors` file under their own names; `UserError` if it fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(weights, part, metadata={"format": "pt"})
        part.replace(path)
    except (SafetensorError, OSError) as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error}",
            help="choose a folder that can be written",
            code=2,
            kind="output",
        ) from error


def find(name: str, folder: Path = HERE) -> Path:
    """The file called `name`, in `folder` or seen from where the program runs; `UserError` for none."""
    for path in (folder / name, Path(name)):
        if path.is_file():
            return path
    raise UserError(
        f"there is no file `{name}` to start from",
        help=f"put it into {folder}, or run where it lies; looked there and in {Path.cwd()}",
        code=2,
        kind="pretrained",
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(
            f"reading {path} takes the package `safetensors`",
            help="install it: `pip install safetensors`",
            code=2,
            kind="pretrained",
        ) from error
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is no whole safetensors file: {error}",
            help="fetch or write it again",
            kind="pretrained",
        ) from error


class _Start:
    """One file, one model: which tensor every weight takes."""

    def __init__(
        self, model: nn.Module, start: Pretrained, file: Any, path: Path, covered: set[str], used: set[str]
    ) -> None:
        self.start, self.file, self.path, self.elsewhere = start, file, path, used
        self.parameters = {n: p for n, p in model.named_parameters() if n not in covered}
        self.numbers = block_numbers(model)
        self.matrices = {f"{n}.weight" for n, one in model.named_modules() if isinstance(one, nn.Linear)}
        self.names = set[str](file.keys())
        self.wanted = {n: self._entry(n) for n in self.parameters}
        self.used: set[str] = set()

    def take(self) -> tuple[Report, list[tuple[nn.Parameter, Tensor]]]:
        """The report, and the values of each weight that the file gives."""
        self._check_patterns()
        places = {name: self._place(name) for name in self.parameters if self._asked(name)}
        missing = [name for name, place in places.items() if place is None]
        if missing and not self.start.partial:
            raise self._missing(missing)
        chosen: list[tuple[str, str, Tensor, str]] = []
        for name, place in places.items():
            if place is not None:
                chosen.append((name, place, *self._values(name, place)))
        turned = self._turned(chosen)
        unused = self._unused()
        weights: list[tuple[nn.Parameter, Tensor]] = []
        report = Report(self.path.name, "", [], missing, unused)
        kinds: dict[str, None] = {}
        for name, place, values, how in chosen:
            kinds.setdefault(str(values.dtype).removeprefix("torch."))
            transposed = turned and name in self.matrices
            self._check_shape(name, place, values, transposed=transposed)
            said = ", ".join(filter(None, (how, "transposed" if transposed else "")))
            report.taken.append(Taken(name, place, tuple(self.parameters[name].shape), said))
            weights.append((self.parameters[name], values.T if transposed else values))
        report.kind = " and ".join(kinds)
        return report, weights

    # ------------------------------------------------------------------ names

    def _entry(self, name: str) -> tuple[str, str] | None:
        """What stands for a weight in the table: its name above the last part that the table leaves out,
        and what the file says for that.
        """
        for pattern, tensor in self.start.tensors.items():
            parts = name.split(".")
            for length in range(len(parts), 0, -1):
                own = ".".join(parts[:length])
                if len(pattern.split(".")) == length and matches(own, pattern):
                    return tensor, name.removeprefix(own)
        return None

    def _asked(self, name: str) -> bool:
        return not self.start.path or self.wanted[name] is not None

    def _candidates(self, name: str) -> list[str]:
        """What the file may call a weight: what the table says, with or without `model.`, or its own name."""
        found: list[str] = []
        entry = self.wanted[name]
        if entry is not None:
            tensor, rest = entry
            number = self._number(name)
            if "*" in tensor:
                if number is None:
                    raise UserError(
                        f"`{name}` stands in no numbered block, and `{tensor}` asks for its number",
                        help="name one tensor without a star",
                        kind="pretrained",
                    )
                tensor = tensor.replace("*", str(number))
            own = name.removesuffix(rest).rpartition(".")[2]
            found = [tensor + rest, tensor.removeprefix("model.") + rest]
            found.append(f"{tensor.rpartition('.')[0]}.{own}{rest}")
        return list(dict.fromkeys([*found, name] if not self.start.path else found))

    def _number(self, name: str) -> int | None:
        return next((n for prefix, n in self.numbers.items() if name.startswith(prefix)), None)

    def _place(self, name: str) -> str | None:
        """The tensor for a weight, `None` if the file has none; `UserError` if it has several."""
        candidates = self._candidates(name)
        found = [one for one in candidates if one in self.names]
        if len(found) > 1:
            raise UserError(
                f"`{name}` may begin as `{found[0]}` or as `{found[1]}`: {self.path.name} has both",
                help=f'say which: `rename = [["{name}", "{found[0]}"]]`',
                kind="pretrained",
            )
        if found:
            return found[0]
        return next((whole for one in candidates if (whole := _fused(one)) in self.names), None)

    def _check_patterns(self) -> None:
        for pattern in self.start.tensors:
            if not any(matches(name, pattern) for name in self.parameters):
                near = ", ".join(f"`{n}`" for n in itertools.islice(self.parameters, 3))
                raise UserError(
                    f"the model has no weight `{pattern}`",
                    help=f"its weights are {near} and so on: see `build().named_parameters()`",
                    kind="pretrained",
                )

    def _missing(self, missing: list[str]) -> UserError:
        name = missing[0]
        looked = [one for one in self._candidates(name) if one != name]
        sought = f"`{looked[0]}` for `{name}`" if looked else f"tensor `{name}`, which the model needs"
        more = f", and nothing for {len(missing) - 1} more weights" if len(missing) > 1 else ""
        tied = name.endswith("unembed.weight") and any(n.endswith("embed_tokens.weight") for n in self.names)
        help = (
            "write `unembed(tied)`: the file has no head beside its embedding"
            if tied
            else f'name the tensor with `rename = [["{name}", "..."]]`'
            + (", or write `partial` to let what is missing begin anew" if not self.start.path else "")
        )
        return UserError(f"{self.path.name} has no {sought}{more}", help=help, kind="pretrained")

    def _unused(self) -> list[str]:
        """What is left over; `UserError` for tensors of a block that the model has, unless it is partial."""
        given = self.names - self.used - self.elsewhere
        left = [n for n in sorted(given, key=_by_number) if not self._follows(n)]
        blocks = {_block(name) for name in self.used} | {""}
        inside = [n for n in left if _block(n) in blocks]
        if self.start.path:
            paths = [self.start.path.replace("*", str(n)) for n in self.numbers.values()]
            inside = left = [n for n in inside if any(n.startswith(f"{path}.") for path in paths)]
        if inside and not self.start.partial:
            more = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            raise UserError(
                f"the model has no place for `{inside[0]}`{more} of {self.path.name}",
                help="write the part that takes it, say which weight it is with `rename`"
                + ("" if self.start.path else ", or write `partial` to leave it out"),
                kind="pretrained",
            )
        return left

    def _follows(self, name: str) -> bool:
        """Whether a tensor says nothing new: it follows from sizes, or is the embedding once more."""
        return name.endswith(DERIVED) or (name.endswith("lm_head.weight") and self._is_tied(name))

    def _is_tied(self, name: str) -> bool:
        """Whether a head is the embedding once more."""
        twin = next((n for n in self.used if n.endswith("embed_tokens.weight")), None)
        return twin is not None and torch.equal(self.file.get_tensor(name), self.file.get_tensor(twin))

    # ------------------------------------------------------------------ values

    def _values(self, name: str, place: str) -> tuple[Tensor, str]:
        """The tensor at `place`, or the rows of it that are this weight's, and how it was found."""
        self.used.add(place)
        values: Tensor = self.file.get_tensor(place)
        if values.dtype not in KINDS:
            kind = str(values.dtype).removeprefix("torch.")
            raise UserError(
                f"`{place}` of {self.path.name} holds {kind}, which are no weights",
                help="write the file with float32, float16 or bfloat16",
                kind="pretrained",
            )
        if not all_finite(values):
            raise UserError(
                f"`{place}` of {self.path.name} holds numbers that are not finite",
                help="fetch the file again, or use another one",
                kind="pretrained",
            )
        if place in self._candidates(name):
            return values, ""
        rows = self._rows(name, place, values)
        return values[rows], f"rows {rows.start} to {rows.stop - 1}"

    def _rows(self, name: str, place: str, values: Tensor) -> slice:
        """Which rows of a fused matrix are this weight's: the parts stand in the order of `FUSED`."""
        sizes: dict[str, int] = {}
        for other, parameter in self.parameters.items():
            for one in self._candidates(other) if self._asked(other) else ():
                if _fused(one) == place:
                    sizes[one.split(".")[-2]] = parameter.shape[0]
        order = FUSED[place.split(".")[-2]]
        if tuple(p for p in order if p in sizes) != order or sum(sizes.values()) != values.shape[0]:
            raise UserError(
                f"`{place}` of {self.path.name} has {values.shape[0]} rows, and what stands in it has "
                f"{' + '.join(str(sizes.get(part, 0)) for part in order)} in the model",
                help="make the sizes of the model those of the file",
                kind="pretrained",
            )
        mine = next(one.split(".")[-2] for one in self._candidates(name) if _fused(one) == place)
        begin = sum(sizes[part] for part in itertools.takewhile(lambda part: part != mine, order))
        return slice(begin, begin + sizes[mine])

    def _turned(self, chosen: list[tuple[str, str, Tensor, str]]) -> bool:
        """Whether the file keeps matrices as `[columns, rows]`: the shapes of oblong ones say so, for all."""
        straight, turned = "", ""
        for name, place, values, _ in chosen:
            shape = tuple(self.parameters[name].shape)
            if name not in self.matrices or shape[0] == shape[1]:
                continue
            if tuple(values.shape) == shape:
                straight = place
            elif tuple(values.shape) == shape[::-1]:
                turned = place
        if straight and turned:
            raise UserError(
                f"{self.path.name} keeps `{turned}` transposed and `{straight}` not",
                help="make the sizes of the model those of the file, or write the file with one convention",
                kind="pretrained",
            )
        return bool(turned)

    def _check_shape(self, name: str, place: str, values: Tensor, *, transposed: bool) -> None:
        shape, found = list(self.parameters[name].shape), list(values.T.shape if transposed else values.shape)
        if shape != found:
            raise UserError(
                f"`{place}` of {self.path.name} is {found}, and `{name}` is {shape}",
                help="make the sizes of the model those of the file",
                kind="pretrained",
            )


def block_numbers(model: nn.Module) -> dict[str, int]:
    """The number of each block of a model, by how its names begin: `blocks.0.`; lists are counted on."""
    lists = [(name, child) for name, child in model.named_children() if isinstance(child, nn.ModuleList)]
    prefixes = [f"{name}.{index}." for name, child in lists for index in range(len(child))]
    return {prefix: number for number, prefix in enumerate(prefixes)}


def _fused(name: str) -> str:
    """What a tensor is called where it stands in a fused matrix; its own name if it never does."""
    parts = name.split(".")
    whole = next((one for one, members in FUSED.items() if parts[-2:-1] and parts[-2] in members), None)
    return name if whole is None else ".".join([*parts[:-2], whole, parts[-1]])


def _block(name: str) -> str:
    """The block that a tensor belongs to: its name up to the first number, "" where it has none.

    >>> _block("model.layers.3.mlp.up_proj.weight"), _block("model.norm.weight")
    ('model.layers.3', '')
    """
    found = re.match(r"(.*?\.\d+)\.", name)
    return found[1] if found else ""


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _merged(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows that differ in the number of their block alone, as one.

    >>> _merged([("blocks.0.up", "layers.8.up"), ("blocks.1.up", "layers.9.up"), ("norm", "norm")])
    [('blocks.0-1.up', 'layers.8-9.up'), ('norm', 'norm')]
    """
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for row in rows:
        parts = [_NUMBER.split(one, maxsplit=1) for one in row]  # before the number, the number, after it
        key = tuple("*".join(one[::2]) for one in parts)
        groups.setdefault(key, []).append([one[1] if len(one) > 1 else "" for one in parts])
    merged: list[tuple[str, str]] = []
    for key, numbers in groups.items():
        ends = zip(numbers[0], numbers[-1], strict=True)
        ranges = [first if first == last else f"{first}-{last}" for first, last in ends]
        left, right = (text.replace("*", f".{span}.", 1) for text, span in zip(key, ranges, strict=True))
        merged.append((left, right))
    return merged
