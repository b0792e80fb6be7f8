"""`nldsl train`: train a spec or a compiled folder."""

from __future__ import annotations

import click

from nldsl.cli.builds import folder_for, is_spec, memory_of_the_machine
from nldsl.cli.console import Console
from nldsl.cli.options import check_settings, set_option, variant_option, with_console


def train(
    console: Console,
    path: str,
    *,
    plan: bool = False,
    steps: int | None = None,
    device: str | None = None,
    resume: bool = False,
    settings: tuple[str, ...] = (),
    variant: str | None = None,
    output: str | None = None,
    compiled: bool | None = None,
    force: bool = False,
) -> int:
    """Train and return the run's exit code; a spec is compiled first, to `build/<name>`."""
    check_settings(settings)
    if plan:
        return show_plan(console, path, settings=settings, variant=variant, steps=steps)
    folder, left = folder_for(
        console,
        path,
        settings=settings,
        variant=variant,
        force=force,
        memory_bytes=memory_of_the_machine() if _on_cpu(device) else None,
    )
    from nldsl.run import train as runner

    return runner.train(
        folder, steps=steps, device=device, resume=resume, set=left, out=output, compile=compiled
    )


def _on_cpu(device: str | None) -> bool:
    """Whether a run will be in main memory."""
    if device not in (None, "auto"):
        return device == "cpu"
    import torch

    return not torch.cuda.is_available()


def show_plan(
    console: Console, path: str, *, settings: tuple[str, ...], variant: str | None, steps: int | None = None
) -> int:
    """Print what a run would do: of a spec the levels, the schedule and the engines, without torch; of a
    folder the schedule by its settings.
    """
    if not is_spec(path):
        from nldsl.run import train as runner

        folder, left = folder_for(console, path, settings=settings, variant=variant)
        console.out(runner.plan(folder, set=left, steps=steps), end="")
        return 0
    from nldsl.cli import inputs
    from nldsl.levels.draw import render

    wished = (*settings, *([f"steps={steps}"] if steps is not None else []))
    spec = inputs.load_spec(console, path, settings=wished, variant=variant)
    console.out(render(spec.levels(), "text", width=console.width, color=console.color_out))
    console.out("")
    console.out(spec.schedule())
    console.out(spec.plan())
    return 0


@click.command("train")
@click.argument("path", type=click.Path(), metavar="SPEC|DIR")
@click.option("--plan", is_flag=True, help="Print what would run, and stop.")
@click.option("--steps", type=click.IntRange(min=0), metavar="N", help="Train for N steps.")
@click.option("--device", metavar="NAME", help="cpu, cuda or auto.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--out", "output", type=click.Path(), metavar="DIR", help="Where checkpoints and logs go.")
@click.option("--compile/--no-compile", "compiled", default=None, help="Use torch.compile or not.")
@click.option("--force", is_flag=True, help="Overwrite compiled files that were edited by hand.")
@variant_option
@set_option
@with_console
def command(
    console: Console,
    path: str,
    plan: bool,
    steps: int | None,
    device: str | None,
    resume: bool,
    output: str | None,
    compiled: bool | None,
    force: bool,
    variant: str | None,
    settings: tuple[str, ...],
) -> int:
    """Train a spec (compiled to build/<name> first) or a compiled folder."""
    return train(
        console,
        path,
        plan=plan,
        steps=steps,
        device=device,
        resume=resume,
        settings=settings,
        variant=variant,
        output=output,
        compiled=compiled,
        force=force,
    )
