"""Who learns which parameter, and by which options."""

from __future__ import annotations

from typing import Any

from torch import nn

from schedule import Level, Settings, UserError, matches


def assign(model: nn.Module, settings: Settings) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of each level by name.  Raises `UserError` for what two levels or none would learn."""
    owners: dict[str, dict[str, nn.Parameter]] = {level.name: {} for level in settings.levels}
    rest = next((level.name for level in settings.levels if "rest" in level.learns), None)
    orphans: list[str] = []
    for name, parameter in model.named_parameters():
        if any(matches(name, pattern) for pattern in settings.frozen):
            parameter.requires_grad_(False)
            continue
        claims = [level.name for level in settings.levels if any(matches(name, p) for p in level.learns)]
        if len(claims) > 1:
            raise UserError(
                f"levels `{claims[0]}` and `{claims[1]}` both learn `{name}`", help="let one of them learn it"
            )
        owner = claims[0] if claims else rest
        if owner is None:
            orphans.append(name)
        else:
            owners[owner][name] = parameter
    if orphans:
        more = f" and {len(orphans) - 1} more" if len(orphans) > 1 else ""
        raise UserError(
            f"no level learns `{orphans[0]}`{more}", help="let a level learn `rest`, or list it in `frozen`"
        )
    for level in settings.levels:
        if not owners[level.name]:
            raise UserError(
                f"level `{level.name}` learns nothing: no parameter matches {', '.join(level.learns)}",
                help="change `learns`; the parameters are those of `build().named_parameters()`",
            )
    return owners


def groups(parameters: dict[str, nn.Parameter], level: Level, settings: Settings) -> list[dict[str, Any]]:
    """Optimizer groups: parameters that differ in decay, or in whether they are matrices, stand apart."""
    groups: dict[tuple[bool, bool | None], list[nn.Parameter]] = {}
    for called, parameter in parameters.items():
        name = called.removeprefix("start of ")
        decays = not any(matches(name, pattern) for pattern in settings.no_decay)
        matrix: bool | None = None
        if any(matches(name, pattern) for pattern in settings.elementwise):
            matrix = False
        elif any(matches(name, pattern) for pattern in settings.stacked):
            matrix = True
        groups.setdefault((decays, matrix), []).append(parameter)
    made: list[dict[str, Any]] = []
    for (decays, matrix), members in groups.items():
        group: dict[str, Any] = {"params": members}
        if not decays and "decay" in level.options:
            group["decay"] = 0.0
        if matrix is not None:
            group["matrix"] = matrix
        made.append(group)
    return made
