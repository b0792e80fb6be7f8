"""Where a study is run: this machine, a Ray cluster or Slurm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from nldsl.ablate.study import Study

Place = Literal["local", "ray", "slurm"]
PLACES: tuple[Place, ...] = get_args(Place)


def run(
    study: Study,
    on: Place = "local",
    *,
    jobs: int | None = None,
    options: Mapping[str, object] | None = None,
    stop_early: bool = False,
    stop: threading.Event | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Do the trials of `study` that wait; 0 when all have ended, 1 when some failed, 130 when it was stopped.

    `options` are those of the place; this machine has none.  `stop_early` ends trials that fall behind, which
    Ray does.  `stop` ends the whole, and `tell` hears events, as for `nldsl.ablate.local.run`.

    Raises:
        ValueError: this machine was given options, or only Ray can do what was asked.
        RunError: as the runners do.
    """
    if on != "ray" and stop_early:
        raise ValueError("only Ray stops trials early")
    if on == "ray":
        from nldsl.ablate import on_ray

        return on_ray.run(
            study, jobs=jobs, stop=stop, tell=tell, options=options or {}, stop_early=stop_early
        )
    if on == "slurm":
        from nldsl.ablate import on_slurm

        return on_slurm.run(study, jobs=jobs, stop=stop, tell=tell, options=options or {})
    if options:
        raise ValueError("a run on this machine has no options")
    from nldsl.ablate import local

    return local.run(study, jobs=jobs, stop=stop, tell=tell)
