"""The `data` of a `train` block: a text, or tasks that are learned one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.diagnostics.model import Span
from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document import model as doc
from nldsl.document.printer import print_expr
from nldsl.resolve.calls import function_name
from nldsl.resolve.expanded import Data, Num, Task
from nldsl.resolve.scope import Amount, Scope, Word

DATA_ARGUMENTS = ("source", "tokenizer", "length", "batch", "split", "seed")
TASKS_ARGUMENTS = ("tasks", "each", "order", "length", "batch", "split", "seed")
DATA_KINDS: Mapping[str, tuple[str, ...]] = {
    "text": DATA_ARGUMENTS,
    "pairs": ("source", "length", "batch", "seed"),
    "classes": ("source", "classes", "each", "order", "length", "batch", "seed"),
    "tasks": TASKS_ARGUMENTS,
}
TASK_KINDS: Mapping[str, tuple[str, ...]] = {
    "text": ("source",),
    "era": ("source", "first", "last"),
    "pairs": ("source",),
    "classes": ("source", "labels"),
}
ORDERS = ("sequence", "joint")
OBJECTIVES = ("next_token", "next_token(answer)", "classify")
DIGIT_PIXELS = 64

Given = dict[str, e.Expr]


def data(declaration: doc.Train, scope: Scope, steps: int, objective: str) -> Data:
    """The data of `declaration`; raises `Unresolved` after recording what is wrong.

    `steps` of the run are shared among tasks that do not say how long each is; the `objective` says what
    counts.
    """
    return _Reader(declaration, scope, steps, objective).read()


class _Reader:
    def __init__(self, declaration: doc.Train, scope: Scope, steps: int, objective: str) -> None:
        self.declaration, self.scope, self.findings = declaration, scope, scope.findings
        self.steps, self.objective = steps, objective

    def read(self) -> Data:
        value = self.declaration.fields.get("data")
        if value is None:
            raise self.findings.stop(
                "NL0206",
                f"`{self.declaration.name}` has no `data`",
                self.declaration.where(),
                "a field is missing",
                help=(
                    'write `data = text("sotu", tokenizer = bytes, length = 256, batch = 8, split = '
                    "manifest)`"
                ),
            )
        name = function_name(value) or ""
        if name not in DATA_KINDS or not isinstance(value, e.Call):
            raise self.findings.stop(
                "NL0702",
                f"no data can be read yet from `{print_expr(value)}`",
                value.span,
                "this kind of data",
                help='use `text("sotu", ...)`, `text("file.txt", ...)`, `tasks([...])`, `classes(...)` or '
                "`pairs(...)`",
            )
        given = self._arguments(value, name, DATA_KINDS[name])
        found = self._text(value, given) if name == "text" else self._tasks(value, name, given)
        if self.objective != "next_token" and all(task.kind == "text" for task in found.tasks):
            raise self.findings.stop(
                "NL0710",
                f"`{self.objective}` asks for answers, and a text has none",
                self.declaration.fields["objective"].span,
                "this objective",
                others=((value.span, "every token counts the same"),),
                help="use `objective = next_token`",
            )
        return found

    def _arguments(self, call: e.Call, name: str, known: tuple[str, ...]) -> Given:
        """The arguments of a call by name; the first one, what is read, has to be there."""
        given: Given = {}
        for index, argument in enumerate(call.arguments):
            key = argument.name or (known[index] if index < len(known) else "")
            if key not in known:
                near = nearest(key, list(known)) if key else []
                raise self.findings.stop(
                    "NL0202",
                    f"`{name}` has no argument `{key}`",
                    argument.span,
                    "unknown argument",
                    help=f"maybe `{near[0]}`" if near else f"it takes {', '.join(f'`{a}`' for a in known)}",
                )
            given[key] = argument.value
        if known[0] not in given:
            example = (
                'tasks([era("sotu", 1790, 1829), ...], ...)' if name == "tasks" else f'{name}("sotu", ...)'
            )
            raise self.findings.stop(
                "NL0201", f"`{name}` needs {_a(known[0])}", call.span, help=f"write `{example}`"
            )
        return given

    # ------------------------------------------------------------------ a text

    def _text(self, call: e.Call, given: Given) -> Data:
        source = self._source(given["source"])
        tokenizer = self._tokenizer(given.get("tokenizer"))
        split = (
            self.scope.word(given["split"], "the split", ("manifest", "tail"))
            if "split" in given
            else ("manifest" if source == "sotu" else "tail")
        )
        if split == "manifest" and source != "sotu":
            meant = nearest(source, ["sotu"])
            other = f"maybe `{meant[0]}`; for a text of your own " if meant else ""
            raise self.findings.stop(
                "NL0203",
                f"`{source}` has no manifest",
                given["split"].span,
                "not a choice",
                help=f"{other}use `split = tail`: the last tenth is held out",
            )
        return Data(
            "text",
            source,
            tokenizer,
            self._tokens(given, "length", 256),
            self._tokens(given, "batch", 8),
            split,
            self._seed(given),
            span=call.span,
            spans={n: v.span for n, v in given.items()},
        )

    # ------------------------------------------------------------------ tasks

    def _tasks(self, call: e.Call, name: str, given: Given) -> Data:
        if name == "pairs":
            source = self._source(given["source"])
            tasks = (Task(source, "pairs", source, span=call.span),)
        elif name == "classes":
            tasks = self._class_tasks(call, given)
        else:
            tasks = tuple(self._task(item) for item in self._list(given["tasks"], "`tasks`", "a task"))
        self._distinct(tasks)
        kinds = {task.kind for task in tasks}
        if len(kinds) > 1 and self.objective != "next_token":
            whole = next(task for task in tasks if task.kind == "text") if "text" in kinds else tasks[0]
            raise self.findings.stop(
                "NL0710",
                f"`{self.objective}` asks for answers, and task `{whole.name}` has none"
                if whole.kind == "text"
                else f"`{self.objective}` asks for one kind of answer, and the tasks have two",
                whole.span,
                "this task",
                help="give tasks of one kind, or use `objective = next_token`",
            )
        digits = all(task.source == "digits" for task in tasks)
        return Data(
            name,
            ", ".join(dict.fromkeys(task.source for task in tasks)),
            "items" if "classes" in kinds else "bytes",
            self._tokens(given, "length", DIGIT_PIXELS if digits else 256),
            self._tokens(given, "batch", 8),
            self.scope.word(given["split"], "the split", ("auto", "tail")) if "split" in given else "auto",
            self._seed(given),
            tasks,
            self._each(call, given, len(tasks)),
            self.scope.word(given["order"], "the order of tasks", ORDERS) if "order" in given else ORDERS[0],
            "all" if self.objective == "next_token" else "answer",
            call.span,
            {n: v.span for n, v in given.items()},
        )

    def _class_tasks(self, call: e.Call, given: Given) -> tuple[Task, ...]:
        """`classes("digits", [[0, 1], [2, 3]])`: a task for each list."""
        source = self._source(given["source"])
        if "classes" not in given:
            raise self.findings.stop(
                "NL0201",
                "`classes` needs `classes`",
                call.span,
                "not given here",
                help="list the classes of each task, as in `classes(digits, [[0, 1], [2, 3]])`",
            )
        return tuple(
            self._classes(source, item)
            for item in self._list(given["classes"], "`classes`", "a list of classes")
        )

    def _task(self, node: e.Expr) -> Task:
        """`text("file.txt")`, `era("sotu", 1790, 1829)`, `pairs("file.tsv")`, `classes(digits, [0, 1])`."""
        name = function_name(node) or ""
        if name not in TASK_KINDS or not isinstance(node, e.Call):
            near = nearest(name, list(TASK_KINDS))
            raise self.findings.stop(
                "NL0707",
                f"`{print_expr(node)}` is no task",
                node.span,
                "this task",
                help=f"maybe `{near[0]}`"
                if near
                else f"use {', '.join(f'`{kind}(...)`' for kind in TASK_KINDS)}",
            )
        given = self._arguments(node, name, TASK_KINDS[name])
        source = self._source(given["source"])
        for argument in TASK_KINDS[name]:
            if argument not in given:
                raise self.findings.stop(
                    "NL0201", f"`{name}` needs {_a(argument)}", node.span, "not given here"
                )
        if name == "classes":
            return self._classes(source, given["labels"])
        if name != "era":
            return Task(source, name, source, span=node.span)
        first, last = (int(self.scope.integer(given[year], f"`{year}`")) for year in ("first", "last"))
        if first > last:
            raise self.findings.stop(
                "NL0709",
                f"an era begins in {first} and ends in {last}",
                node.span,
                "no year lies between",
                help=f"write `era({print_expr(given['source'])}, {last}, {first})`",
            )
        return Task(f"{first}-{last}", "text", source, (first, last), span=node.span)

    def _classes(self, source: str, node: e.Expr) -> Task:
        labels = tuple(self._label(item) for item in self._list(node, "a task's classes", "a class"))
        known = tuple(str(digit) for digit in range(10))
        for label, item in zip(labels, self._items(node), strict=True):
            if source == "digits" and label not in known:
                raise self.findings.stop(
                    "NL0707",
                    f"`digits` has no class `{label}`",
                    item.span,
                    "unknown class",
                    help="its classes are 0 to 9",
                )
        return Task(", ".join(labels), "classes", source, labels=labels, span=node.span)

    def _label(self, node: e.Expr) -> str:
        found = self.scope.value(node)
        if isinstance(found, Word):
            return found.text
        if isinstance(found, Num) and float(found.value).is_integer():
            return str(int(found.value))
        raise self.findings.stop(
            "NL0707",
            f"`{print_expr(node)}` is no class",
            node.span,
            "not a number or a word",
            help="name a class by a whole number or a word, in quotes where it has spaces",
        )

    def _list(self, node: e.Expr, what: str, item: str) -> tuple[e.Expr, ...]:
        items = self._items(node)
        if not items:
            raise self.findings.stop(
                "NL0707",
                f"{what} is {'empty' if isinstance(node, e.ListOf) else f'`{print_expr(node)}`'}",
                node.span,
                "a list is wanted here",
                help=f"list {item} or more in brackets",
            )
        return items

    def _items(self, node: e.Expr) -> tuple[e.Expr, ...]:
        found = self.scope.value(node)
        return found.items if isinstance(found, e.ListOf) else ()

    def _distinct(self, tasks: tuple[Task, ...]) -> None:
        """A class belongs to one task: else an item would be right in both, and forgetting mean nothing."""
        seen: dict[tuple[str, str], Task] = {}
        for task in tasks:
            for index, label in enumerate(task.labels):
                if label in task.labels[:index] or (task.source, label) in seen:
                    other = seen.get((task.source, label), task)
                    raise self.findings.stop(
                        "NL0708",
                        f"the class `{label}` of `{task.source}` is listed twice",
                        task.span,
                        "here",
                        others=((other.span, "and here"),) if other is not task else (),
                        help="leave one of them out",
                    )
            seen |= {(task.source, label): task for label in task.labels}

    def _each(self, call: e.Call, given: Given, tasks: int) -> int:
        """Steps of a task: as written, or an equal share of the run's."""
        if "each" in given:
            found = self.scope.value(given["each"])
            if isinstance(found, Amount):
                if found.unit != "step":
                    raise self._unit("each", given["each"], found.unit, "step")
                return int(
                    self.scope.integer(e.Number(found.number.value, span=given["each"].span), "`each`")
                )
            return int(self.scope.integer(given["each"], "`each`"))
        if self.steps % tasks:
            fitting = max(tasks, self.steps - self.steps % tasks)
            raise self.findings.stop(
                "NL0705",
                f"{self.steps} steps cannot be shared equally among {tasks} tasks",
                call.span,
                f"{tasks} tasks",
                others=((_span(self.declaration, "steps"), f"{self.steps} steps"),),
                help=f"use `steps = {fitting}`, or say how long a task is, as in `each = 100 steps`",
            )
        return self.steps // tasks

    # ------------------------------------------------------------------ arguments

    def _source(self, node: e.Expr) -> str:
        found = self.scope.value(node)
        return found.text if isinstance(found, Word) else print_expr(node)

    def _tokenizer(self, node: e.Expr | None) -> str:
        """`bytes`, or the name of the file that `file("tokenizer.json")` gives."""
        if node is None:
            return "bytes"
        if not isinstance(node, e.Call) or function_name(node) != "file":
            return self.scope.word(node, "the tokenizer", ("bytes",))
        named = self.scope.value(node.positional[0]) if len(node.arguments) == 1 and node.positional else None
        if isinstance(named, Word) and named.text.endswith(".json"):
            return named.text
        raise self.findings.stop(
            "NL0203",
            f"no tokenizer can be read from `{print_expr(node)}`",
            node.span,
            "not a choice",
            help='write `file("tokenizer.json")`, a file of the package `tokenizers`',
        )

    def _seed(self, given: Given) -> int:
        return int(self.scope.integer(given["seed"], "the seed", least=0)) if "seed" in given else 0

    def _tokens(self, given: Given, name: str, default: int) -> int:
        if name not in given:
            return default
        unit = "token" if name == "length" else "sequence"
        found = self.scope.value(given[name])
        if isinstance(found, Amount):
            if found.unit != unit:
                raise self._unit(name, given[name], found.unit, unit)
            return int(found.number)
        return int(self.scope.integer(given[name], f"`{name}`"))

    def _unit(self, name: str, node: e.Expr, found: str, wanted: str) -> Exception:
        return self.findings.stop(
            "NL0303",
            f"`{name}` is counted in {found}s",
            node.span,
            "this unit does not fit",
            help=f"count it in {wanted}s",
        )


def _span(declaration: doc.Train, field: str) -> Span | None:
    value = declaration.fields.get(field)
    return value.span if value is not None else declaration.where()


def _a(name: str) -> str:
    return "a source" if name == "source" else f"`{name}`"
