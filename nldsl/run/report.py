"""One page about a run, made from its log: `report.html`, with nothing outside it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nldsl.run.look import COLOURS, GREY, figure, page, smooth, svg

Event = dict[str, Any]


def write(target: Path, *, command: str, folder: Path) -> None:
    """Write the report of the run in `target`'s folder, from its `log.jsonl`; raises `OSError`.

    `command` is what starts such a run again; `folder` is the build folder.
    """
    log = read_log(target.with_name("log.jsonl"))
    text = render(log, command=command, folder=folder)
    part = target.with_name(target.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(target)


def read_log(path: Path) -> list[Event]:
    """The events of a run; of events that happened twice, because it was resumed, the later."""
    kept: dict[tuple[str, int], Event] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed
        kept.pop((event["event"], event["step"]), None)
        kept[event["event"], event["step"]] = event
    return list(kept.values())


def render(log: list[Event], *, command: str, folder: Path) -> str:
    """The page as HTML.  `log` begins with a `start` event."""
    start = [e for e in log if e["event"] == "start"][-1]
    steps = [e for e in log if e["event"] == "step"]
    evaluations = [e for e in log if e["event"] == "evaluate"]
    stop = next((e for e in reversed(log) if e["event"] in ("stop", "failed")), None)
    sample = next((e["text"] for e in reversed(log) if e["event"] == "sample"), "")
    levels = start["levels"]
    parts = [
        f"<h1>{html.escape(start['name'])}</h1>",
        f'<p class="lead">{html.escape(_lead(start, steps))}</p>',
        _ending(stop, start),
        _tiles(start, steps, evaluations),
    ]
    if steps:
        caption = (
            f"Loss in nats per {_unit(start)}. The dashed lines are what counting gives on the same held-out "
            "text."
        )
        parts.append(figure("Loss", _draw(_loss, start, steps, evaluations), caption))
        caption = (
            "Each mark is an update of the level's weights; a level that changes at every step is a band."
        )
        parts.append(figure("Updates", _draw(_updates, start, steps, evaluations), caption))
        parts.append(
            figure("Rates", _draw(_rates, start, steps, evaluations), "Learning rate at each update.")
        )
    parts += ["<h2>Levels</h2>", _level_table(levels, steps)]
    if sample:
        parts += ["<h2>A sample</h2>", f"<pre>{html.escape(sample)}</pre>"]
    parts += ["<h2>Run it again</h2>", f"<pre>{html.escape(_commands(start, command, folder))}</pre>"]
    settings = json.dumps(start["settings"], indent=2, ensure_ascii=False)
    shown = f"<details><summary>all of them</summary><pre>{html.escape(settings)}</pre></details>"
    parts += ["<h2>Settings</h2>", shown]
    return page(f"{start['name']}: training report", parts)


def _lead(start: Event, steps: list[Event]) -> str:
    data = start["settings"]["data"]
    done = steps[-1]["step"] if steps else start["step"]
    text = f"{data['batch']} x {data['length']} tokens of {data['source']}"
    run = f"{done:,} of {start['steps']:,} steps of {text}"
    where = f"on {start['device']} in {start['precision']}, torch {start['torch']}"
    return f"{start['parameters']:,} parameters, {run}, {where}"


def _ending(stop: Event | None, start: Event) -> str:
    if stop is None or (stop["event"] == "stop" and not stop["code"]):
        return ""
    if stop["event"] == "failed":
        return f'<p class="bad">The run failed: {html.escape(stop["text"])}</p>'
    return f'<p class="bad">Interrupted after step {stop["step"]:,} of {start["steps"]:,}.</p>'


def _unit(start: Event) -> str:
    """What the run's text is cut into."""
    return "byte" if start["settings"]["data"]["tokenizer"] == "bytes" else "token"


def _tiles(start: Event, steps: list[Event], evaluations: list[Event]) -> str:
    tiles: list[tuple[str, str]] = []
    unit = _unit(start)
    if evaluations:
        first, last = evaluations[0]["loss"], evaluations[-1]["loss"]
        tiles.append((f"{last:.3f}", f"held-out nats per {unit}"))
        tiles.append((f"{last / math.log(2):.3f}", f"held-out bits per {unit}"))
        tiles.append((f"{first:.3f}", f"nats per {unit} at step {evaluations[0]['step']:,}"))
    tiles.append((f"{start['baselines']['unigram']:.3f}", f"single {unit}s counted"))
    tiles.append((f"{start['baselines']['bigram']:.3f}", f"pairs of {unit}s counted"))
    if steps:
        tiles.append((f"{steps[-1]['tokens_per_second']:,.0f}", "tokens a second"))
    shown = "".join(f'<div class="tile"><b>{number}</b><span>{words}</span></div>' for number, words in tiles)
    return f'<div class="tiles">{shown}</div>'


def _level_table(levels: list[Event], steps: list[Event]) -> str:
    head = "<tr><th>level</th><th>changes</th><th>rule</th><th>options</th><th class=n>rate</th>"
    head += "<th class=n>parameters</th><th class=n>updates</th></tr>"
    rows: list[str] = []
    for level, colour in zip(levels, _colours(levels), strict=True):
        options = ", ".join(f"{k} = {v}" for k, v in level["options"].items()) or "defaults"
        rate = level["rate"]
        shape = f" {rate['shape']}" if rate["shape"] != "constant" else ""
        warm = f", warm-up {rate['warmup']}" if rate["warmup"] else ""
        updates = sum(step["updates"].get(level["name"], 0) for step in steps)
        cells = (
            f'<td><i class="dot" style="background:{colour}"></i>{html.escape(level["name"])}</td>',
            f"<td>{html.escape(level['clock'])} ({level['reduce']})</td>",
            f"<td>{html.escape(level['rule'])}</td><td>{html.escape(options)}</td>",
            f"<td class=n>{rate['base']:g}{shape}{warm}</td>",
            f"<td class=n>{level['parameters']:,}</td><td class=n>{updates:,}</td>",
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{head}{''.join(rows)}</table>"


def _commands(start: Event, command: str, folder: Path) -> str:
    return (
        f"{command}\n"
        f"nldsl eval {folder} --checkpoint {start['folder']}/checkpoint.pt\n"
        f"nldsl generate {folder} --checkpoint {start['folder']}/checkpoint.pt"
    )


# --------------------------------------------------------------------------- pictures


def _colours(levels: list[Event]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(levels))]


def _draw(paint: Callable[..., None], start: Event, steps: list[Event], evaluations: list[Event]) -> str:
    """A picture over the steps of the run, as inline SVG."""

    def whole(canvas: Any) -> None:
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0)
        paint(axes, start, steps, evaluations)
        axes.set_xlim(0, max(steps[-1]["step"], 1) * 1.01)
        axes.set_xlabel("step")

    return svg(whole, height=3.4 if paint is not _updates else 0.9 + 0.34 * len(start["levels"]))


def _loss(axes: Any, start: Event, steps: list[Event], evaluations: list[Event]) -> None:
    numbers, losses = [e["step"] for e in steps], [e["loss"] for e in steps]
    axes.plot(numbers, losses, color=COLOURS[0], alpha=0.35, linewidth=0.8)
    axes.plot(numbers, smooth(losses), color=COLOURS[0], linewidth=1.6, label="training, smoothed")
    held = [(e["step"], e["loss"]) for e in evaluations]
    axes.plot(
        *zip(*held, strict=True),
        color=COLOURS[1],
        marker="o",
        markersize=3.5,
        linewidth=1.2,
        label="held out",
    )
    low = min(*losses, *(loss for _, loss in held), *start["baselines"].values())
    high = max(held[0][1] if held else 0.0, *losses[:1], start["baselines"]["unigram"])
    for (name, value), dashes in zip(start["baselines"].items(), ((6, 3), (2, 3)), strict=True):
        words = f"single {_unit(start)}s" if name == "unigram" else f"pairs of {_unit(start)}s"
        axes.axhline(value, color=GREY, linewidth=1, dashes=dashes, label=f"{words}, {value:.2f}")
    pad = 0.05 * (high - low or 1.0)
    axes.set_ylim(low - pad, high + pad)
    axes.set_ylabel(f"nats per {_unit(start)}")
    axes.legend(
        frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=9, labelcolor=GREY
    )


def _updates(axes: Any, start: Event, steps: list[Event], _: list[Event]) -> None:
    levels = start["levels"]
    for row, (level, colour) in enumerate(zip(levels, _colours(levels), strict=True)):
        at = [e["step"] for e in steps if level["name"] in e["updated"]]
        if len(at) > 1 and len(at) > 0.9 * (at[-1] - at[0] + 1):
            axes.barh(row, at[-1] - at[0] + 1, left=at[0] - 0.5, height=0.5, color=colour, alpha=0.8)
        else:
            axes.vlines(at, row - 0.3, row + 0.3, color=colour, linewidth=1.4)
    axes.set_yticks(range(len(levels)), [_short(level["name"]) for level in levels])
    axes.set_ylim(len(levels) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _rates(axes: Any, start: Event, steps: list[Event], _: list[Event]) -> None:
    levels = start["levels"]
    for level, colour in zip(levels, _colours(levels), strict=True):
        points = [(e["step"], e["rates"][level["name"]]) for e in steps if level["name"] in e["rates"]]
        if points:
            few = len(points) <= 40
            label, marker = _short(level["name"]), "o" if few else None
            axes.plot(
                *zip(*points, strict=True),
                color=colour,
                linewidth=1.5,
                marker=marker,
                markersize=3,
                label=label,
            )
    rates = [rate for e in steps for rate in e["rates"].values() if rate > 0]
    if rates and max(rates) > 30 * min(level["rate"]["base"] or math.inf for level in levels):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("rate")
    axes.legend(
        frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=9, labelcolor=GREY
    )


def _short(name: str, width: int = 22) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"
