"""One generated class on its way: names, constructor parameters, modules, running state, kernels."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

from nldsl.codegen.emit import code as c
from nldsl.codegen.emit.kernels import kernel_names
from nldsl.codegen.emit.numbers import number
from nldsl.codegen.emit.printer import statement
from nldsl.diagnostics.model import Span
from nldsl.resolve.algorithm import Algorithm
from nldsl.resolve.expanded import Num

# What `nn.Module` calls its own; a part with such a name would hide it.
MODULE_NAMES = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile compile_region cpu
    cuda double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children named_modules
    named_parameters parameters register_backward_hook register_buffer register_forward_hook
    register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module
    register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ self
    set_extra_state set_submodule share_memory state state_dict to to_empty train training type xpu
    zero_grad
    """.split()
)
FILE_NAMES = frozenset(
    {
        "Any",
        "Config",
        "F",
        "State",
        "Tensor",
        "annotations",
        "build",
        "dataclass",
        "math",
        "nn",
        "self",
        "torch",
    }
)


def reserved(name: str) -> bool:
    """Whether a generated file has another use for a name: Python, an import, or a kernel."""
    return keyword.iskeyword(name) or hasattr(builtins, name) or name in FILE_NAMES or name in kernel_names()


def parameter(name: str) -> str:
    """A parameter of a spec as a parameter of a constructor: `lambda` becomes `lambda_`."""
    return f"{name}_" if reserved(name) else name


class Namespace:
    """Names that never collide, not with each other and not with `kept`."""

    def __init__(
        self, taken: frozenset[str] = frozenset(), kept: Callable[[str], bool] = keyword.iskeyword
    ) -> None:
        self.taken, self.kept = set(taken), kept

    def fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted_` if it is kept for something else, or `wanted_2` and so on if it is taken.

        >>> names = Namespace()
        >>> names.fresh("key"), names.fresh("key"), names.fresh("class")
        ('key', 'key_2', 'class_')
        """
        base = f"{wanted}_" if self.kept(wanted) else wanted
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def snake(name: str) -> str:
    """`SelfModifying` to `self_modifying`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def origin(span: Span | None) -> str:
    """`hope.nl:12`, without folders: the same wherever the spec lies."""
    if span is None:
        return ""
    line, _ = span.source.position(span.start)
    return f"{PurePath(span.source.name).name}:{line}"


def spelled(span: Span | None) -> str:
    """The author's text of a span on one line."""
    return " ".join(span.text.split()) if span is not None else ""


def trimmed(text: str) -> str:
    """A comment that fits on its line."""
    return text if len(text) <= 96 else f"{text[:93].rstrip()}..."


def notes(span: Span | None) -> str:
    """The comment lines that stand right above a declaration in its source."""
    if span is None:
        return ""
    number_, _ = span.source.position(span.start)
    lines: list[str] = []
    while number_ > 1 and span.source.line(number_ - 1).lstrip().startswith("#"):
        number_ -= 1
        lines.insert(0, span.source.line(number_).strip().lstrip("#").strip())
    return "\n".join(lines)


@dataclass(slots=True)
class Written:
    """A class that has been written: how to construct it, whose weights lie where, what it needs."""

    name: str
    parameters: tuple[str, ...]
    stateful: bool
    step: c.Class
    own: list[tuple[str, str]] = field(default_factory=list)  # spec path of weights -> attribute
    children: list[tuple[str, Written]] = field(default_factory=list)  # attribute (`blocks.*`) -> class
    customary: list[tuple[str, str]] = field(default_factory=list)  # attribute -> what other models call it


class ClassWriter:
    """Collects the parts of a class."""

    def __init__(self, values: dict[str, Num], spell: str = "{}") -> None:
        self.values = {k: v.value for k, v in values.items()}
        self.spell = spell
        self.attributes = Namespace(kept=lambda name: name in MODULE_NAMES or keyword.iskeyword(name))
        self.used: dict[str, None] = {}
        self.modules: list[c.Step] = []
        self.states: list[tuple[str, c.Code]] = []
        self.own: list[tuple[str, str]] = []
        self.children: list[tuple[str, Written]] = []
        self.kernels: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.buffers: list[str] = []
        self.sizes: list[c.Step] = []
        self.made: dict[tuple[int, str], str] = {}  # of a stage: the module that was made for it
        self.customary: list[tuple[str, str]] = []  # attribute: what other models call its weights
        self.methods: list[c.Step] = []  # beside `forward`
        self.rules: list[tuple[Algorithm, str]] = []  # declared rules, and their methods

    # ------------------------------------------------------------------ numbers

    def number(self, num: Num) -> c.Code:
        """A number for the constructor."""
        return number(num, self.values, self._use)

    def _use(self, name: str) -> str:
        self.used.setdefault(name)
        return self.spell.format(parameter(name))

    def constant(self, num: Num, wanted: str) -> c.Code:
        """A number for `forward`: a literal, or an attribute that the constructor computes."""
        built = self.number(num)
        if (
            isinstance(built, c.Atom)
            and not built.text.isidentifier()
            and "." not in built.text.replace(".", "", 1 if built.text[:1].isdigit() else 0)
        ):
            return built
        if isinstance(built, c.Atom) and re.fullmatch(r"-?[\d_.e+-]+", built.text):
            return built
        key = repr(built)
        if key not in self.constants:
            attribute = self.attributes.fresh(wanted)
            self.constants[key] = attribute
            self.sizes.append(c.Assign(c.name(f"self.{attribute}"), built))
        return c.name(f"self.{self.constants[key]}")

    # ------------------------------------------------------------------ modules

    def module(self, wanted: str, value: c.Code, paths: tuple[str, ...] = (), comment: str = "") -> str:
        """A submodule or parameter; returns `self.<name>`.  `paths` name its weights in the spec."""
        attribute = self.attributes.fresh(wanted)
        self.modules.append(c.Assign(c.name(f"self.{attribute}"), value, comment))
        self.own += [(path, attribute) for path in paths]
        return f"self.{attribute}"

    def kernel(self, name: str, file: str) -> str:
        """A kernel by name; it is imported where the class stands."""
        self.kernels[name] = file
        return name

    def keep(self, key: str, value: c.Code | str) -> None:
        """Hand `value` on as running state."""
        self.states.append((key, c.code(value)))

    def state(self) -> c.Mapping:
        return c.Mapping(tuple(self.states))


def signature(parameters: tuple[str, ...], values: dict[str, int | float]) -> tuple[str, ...]:
    """The parameters of a constructor; whole numbers are `int`."""
    return (
        "self",
        *(f"{parameter(p)}: {'int' if isinstance(values[p], int) else 'float'}" for p in parameters),
    )


def gives(result: c.Code, state: c.Mapping) -> tuple[c.Step, ...]:
    """The last lines of `forward`: the result and the state."""
    both = c.Return(c.Several((result, state), bare=True))
    if len(statement(both, 8)) == 1:
        return (both,)
    return (c.Assign(c.name("state"), state), c.Return(c.Several((result, c.name("state")), bare=True)))


def text_of(step: c.Class) -> str:
    """The printed class, to tell whether two classes are the same."""
    return "\n".join(statement(step))
