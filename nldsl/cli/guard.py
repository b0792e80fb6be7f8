"""Every way a verb can end, turned into a message and an exit code; never a bare traceback.

0 fine, 1 problems in the spec or run, 2 usage or files, 70 a bug in nldsl, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from nldsl.cli.console import Console
from nldsl.cli.problem import Problem
from nldsl.run.files import FileProblem, reason

FINE, PROBLEMS, USAGE, BUG, INTERRUPTED = 0, 1, 2, 70, 130


def run(arguments: list[str]) -> int:
    """Run the command line; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal that lacks a character still gets the line
    console = Console(color=_color_argument(arguments))
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except BaseException as error:  # noqa: BLE001 - this is the one place where every ending gets its message
        try:
            return _ending(error, arguments, console)
        except BrokenPipeError:
            return _reader_left()
    return code


def _invoke(arguments: list[str]) -> int:
    from nldsl.cli.app import cli

    result: Any = cli.main(args=arguments, prog_name="nldsl", standalone_mode=False)
    return result if isinstance(result, int) else FINE


def _ending(error: BaseException, arguments: list[str], console: Console) -> int:
    if os.environ.get("NLDSL_DEBUG") == "1" and not isinstance(error, SystemExit | click.exceptions.Exit):
        import traceback

        traceback.print_exception(error)
    match error:
        case click.exceptions.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else (FINE if error.code is None else PROBLEMS)
        case KeyboardInterrupt() | click.Abort():
            console.say("interrupted")
            return INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            console.say(error.format_message())
            return USAGE
        case click.UsageError():
            where = error.ctx.command_path if error.ctx is not None else "nldsl"
            console.problem(_lower(error.format_message()), f"`{where} --help` lists what it takes")
            return USAGE
        case click.ClickException():
            console.problem(_lower(error.format_message()))
            return USAGE
        case Problem():
            console.problem(error.message, error.help)
            return error.exit_code
        case FileProblem():
            console.problem(error.message, error.help)
            return USAGE
        case OSError():
            name = f" `{error.filename}`" if error.filename is not None else ""
            console.problem(f"cannot use{name or ' a file'}: {reason(error)}")
            return USAGE
        case MemoryError():
            console.problem(
                "the machine has too little memory for this", "`nldsl graph` shows what a spec needs"
            )
            return PROBLEMS
        case _:
            return _bug(error, arguments, console)


def _bug(error: BaseException, arguments: list[str], console: Console) -> int:
    import traceback

    from nldsl.cli.about import version

    last = traceback.extract_tb(error.__traceback__)[-1:] if error.__traceback__ else []
    place = f" at {os.path.basename(last[0].filename)}:{last[0].lineno}" if last else ""  # noqa: PTH119
    console.problem(f"this is a bug in nldsl: {type(error).__name__}: {error}{place}")
    console.say(f"  nldsl {version()}, Python {sys.version.split()[0]}, {sys.platform}")
    console.say(f"  command: nldsl {' '.join(arguments)}")
    console.say(
        "  Please report it with the lines above and the spec, if you can share it.\n"
        "  NLDSL_DEBUG=1 shows the whole traceback."
    )
    return BUG


def _reader_left() -> int:
    """The reader of the output closed it, as `head` does: it has what it wanted."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return FINE
    return FINE


def _color_argument(arguments: list[str]) -> Any:
    """The `--color` of the command line, for messages about that command line."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--color="):
            value = argument.partition("=")[2]
        elif argument == "--color":
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
        else:
            continue
        return value if value in ("always", "never") else "auto"
    return "auto"


def _lower(message: str) -> str:
    text = message.strip().removesuffix(".")
    return text[:1].lower() + text[1:]
