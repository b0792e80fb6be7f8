"""What an update by a rule costs, counted from its formulas.

An operation on two tensors costs one FLOP for each number, a product of matrices two for each
multiply-add; numbers of a whole group of weights cost nothing.
"""

from __future__ import annotations

from nldsl.levels.costs import newton_schulz
from nldsl.levels.rules import Learned, Matrix
from nldsl.resolve.algorithm import (
    ELEMENTWISE,
    Algorithm,
    Axes,
    Formula,
    Function,
    Negative,
    Operation,
    Recall,
    RuleMemory,
    constant,
)


def update_flops(algorithm: Algorithm, what: Learned) -> int:
    """FLOPs of one update of `what` by one algorithm, without the rule that it leaves weights to.

    Memories with a period of their own count as often as they are written.
    """
    matrices = sum(_of_shape(algorithm, shape) * count for shape, count in what.matrices)
    return round(matrices + _of_shape(algorithm, (1, 1)) * what.others)


def _of_shape(algorithm: Algorithm, shape: Matrix) -> float:
    formulas = [formula for _, formula in algorithm.locals] + [algorithm.weight]
    own = sum(_formula(one, algorithm, shape) for one in formulas)
    return own + sum(_write(one, algorithm, shape) for one in algorithm.memories)


def _write(memory: RuleMemory, algorithm: Algorithm, shape: Matrix) -> float:
    """A memory's values in each update, and its write once in a period."""
    numbers, period = shape[0] * shape[1], algorithm.period(memory)
    sources = [memory.value] if memory.key is None else [memory.value, memory.key]
    given = sum(_formula(one, algorithm, shape) for one in sources)
    gathered = numbers if period > 1 else 0
    retained = numbers if memory.retain is not None else 0
    if memory.map.kind == "vector":
        written = 3.0 if memory.objective == "l2" else 2.0
        return given + gathered + (retained + (written + 2 * (memory.key is not None)) * numbers) / period
    out, into = _sizes(memory.axes, shape)
    rows = numbers / into  # of the key, one for each pair
    weights = memory.holds(*shape) // (1 if memory.update is None else 2)
    products = 2 if memory.objective == "l2" else 1
    depth = 3 if memory.map.kind == "mlp" else products  # forward, and back twice
    solved = 2 * into**2 * (out + into / 3) if memory.implicit else 0
    return given + gathered + (retained + 2 * depth * rows * weights + solved) / period


def _formula(formula: Formula, algorithm: Algorithm, shape: Matrix) -> float:
    """FLOPs of a formula for a weight of one shape."""
    return sum(_node(node, algorithm, shape) for node in formula.walk())


def _node(node: Formula, algorithm: Algorithm, shape: Matrix) -> float:
    if node.kind == "number":
        return 0
    match node:
        case Operation() | Negative():
            return _numbers(node.axes, shape)
        case Recall(memory=name, query=query) if query is not None:
            memory = algorithm.memory(name)
            out, into = _sizes(memory.axes, shape)
            return 2 * memory.holds(*shape) * shape[0] * shape[1] / into if out else 0
        case Function(name="orthogonal", arguments=(_, *more)):
            rounds = constant(more[0], algorithm.options) if more else None
            return newton_schulz(*shape, rounds=int(rounds or 5))
        case Function(name="times", arguments=(a, b)):
            (rows, inner), (_, columns) = _sizes(a.axes, shape), _sizes(b.axes, shape)
            return 2 * rows * inner * columns
        case Function(name="solve", arguments=(a, b)):
            rows, size = _sizes(a.axes, shape)[0], _sizes(b.axes, shape)[1]
            return 2 * size**2 * (rows + size / 3)
        case Function(name="norm", arguments=(a, *_)):
            return 2 * _numbers(a.axes, shape)
        case Function(name=name) if name in ELEMENTWISE or name == "mean":
            return _numbers(node.axes, shape)
        case _:
            return 0


def _sizes(axes: Axes, shape: Matrix) -> tuple[int, int]:
    sizes = {"rows": shape[0], "columns": shape[1], "tokens": 1}
    found = [sizes[axis] for axis in axes]
    return (found[0], found[1]) if len(found) == 2 else (1, 1)


def _numbers(axes: Axes, shape: Matrix) -> int:
    rows, columns = _sizes(axes, shape)
    return rows * columns


__all__ = ["update_flops"]
