"""Reports of studies: what they say, what they never say, and that every number leads to its run."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from nldsl.ablate import report
from nldsl.ablate.report import csvs, latex, page, plots, texts
from nldsl.ablate.report import words as w
from nldsl.ablate.report.facts import Facts, Line, Outcome
from nldsl.ablate.report.gather import gather
from nldsl.ablate.report.tables import main_table, trials_table
from nldsl.ablate.results import read
from nldsl.ablate.rows import Keep
from nldsl.ablate.statistics import Effect, compare
from nldsl.ablate.study import Study
from nldsl.run.folder import RunError

from . import simulated

FILES = {"report.html", "report.md", "report.tex", "runs.csv", "effects.csv"}


class _Page(html.parser.HTMLParser):
    """The links, ids and text of a page, and the tags that are open."""

    VOID = frozenset({"meta", "br", "img", "wbr"})

    def __init__(self, content: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.links += [known["href"] or ""] if tag == "a" else []
        self.ids |= {known["id"] or ""} if "id" in known else set()
        self.outside += [v for k, v in attrs if k in ("src", "srcset") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def html_of(facts: Facts) -> _Page:
    return _Page(page.as_html(facts, report.pictures_of(facts)))


# --------------------------------------------------------------------------- a study that was run


def test_a_report_is_written_and_leads_to_what_is_there(done: Study) -> None:
    found = report.write(done.folder)
    place = found.parent
    assert {path.name for path in place.iterdir()} >= FILES
    seen = _Page(found.read_text("utf-8"))
    assert seen.open == []
    assert seen.outside == []
    assert {link[1:] for link in seen.links if link.startswith("#")} <= seen.ids
    for trial in done.trials():
        assert f"../runs/{trial.variant}/seed-{trial.seed}/result.json" in map(unquote, seen.links)
    assert _broken(place) == []


def _broken(place: Path) -> list[str]:
    """The links of a report that lead nowhere."""
    page_links = _Page((place / "report.html").read_text("utf-8")).links
    links = [link for link in page_links if not link.startswith("#")]
    links += re.findall(r"\]\(([^)]+)\)", (place / "report.md").read_text("utf-8"))
    assert links
    return [link for link in links if not (place / unquote(link)).exists()]


def test_its_numbers_are_those_of_the_trials(done: Study) -> None:
    report.write(done.folder)
    rows = list(csv.DictReader((done.folder / "report" / "runs.csv").open(encoding="utf-8")))
    assert len(rows) == len(done.trials())
    for row, trial in zip(
        sorted(rows, key=lambda r: (r["variant"], int(r["seed"]))), _by_name(done), strict=True
    ):
        result = done.result_of(trial)
        assert result is not None
        assert float(row["loss"]) == result["measures"]["loss"]
        assert (row["run"], row["spec"]) == (f"runs/{trial.name}", f"variants/{trial.variant}/spec.nl")
        assert (done.folder / row["run"]).is_dir()
        assert (done.folder / row["spec"]).is_file()


def test_effects_are_written_with_what_it_takes_to_read_them(done: Study) -> None:
    report.write(done.folder)
    rows = list(csv.DictReader((done.folder / "report" / "effects.csv").open(encoding="utf-8")))
    found = [effect for measure in done.asked.measures for effect in compare(read(done.folder), measure)]
    assert len(rows) == len(found) > 0
    for row in rows:
        (one,) = (e for e in found if (e.variant, e.measure) == (row["variant"], row["measure"]))
        for name in ("mean", "low", "high", "level"):
            assert float(row[name]) == getattr(one, name)
        assert (row["scale"], row["verdict"], row["p"], row["adjusted"]) == (one.scale, one.verdict, "", "")
        assert (done.folder / row["runs"]).is_dir()


def _by_name(study: Study) -> list[Any]:
    return sorted(study.trials(), key=lambda trial: (trial.variant, trial.seed))


def test_the_same_study_gives_the_same_bytes(done: Study, tmp_path: Path) -> None:
    first = report.write(done.folder).parent
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    copy = shutil.copytree(done.folder, tmp_path / "other" / "name")
    again = report.write(copy).parent
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before


def test_a_report_that_cannot_be_written_is_a_finding(done: Study, tmp_path: Path) -> None:
    copy = shutil.copytree(done.folder, tmp_path / "study")
    shutil.rmtree(copy / "report", ignore_errors=True)
    (copy / "report").write_text("a file")
    with pytest.raises(RunError) as caught:
        report.write(copy)
    assert (caught.value.diagnostic.code, caught.value.exit_code) == ("NL0945", 2)


def test_a_lost_result_is_said(done: Study, tmp_path: Path) -> None:
    copy = shutil.copytree(done.folder, tmp_path / "study")
    trial = done.trials()[0]
    (copy / "runs" / trial.name / "result.json").unlink()
    text = report.text(copy)
    assert f"The result of trial `{trial.name}` is lost" in text
    assert "The study is not finished: 1 of" in text
    assert len(gather(copy).lines) == len(gather(done.folder).lines)


def test_a_study_that_has_begun_only_in_part_leads_to_what_is_there(done: Study, tmp_path: Path) -> None:
    copy = shutil.copytree(done.folder, tmp_path / "study")
    first = done.trials()[-1].variant
    shutil.rmtree(copy / "runs" / first)
    shutil.rmtree(copy / "runs" / "base" / "seed-1")
    assert _broken(report.write(copy).parent) == []


def test_what_a_study_is_compared_with_comes_first(done: Study, tmp_path: Path) -> None:
    copy = shutil.copytree(done.folder, tmp_path / "study")
    path = copy / "study.json"
    last = done.rows[-1].name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"baseline": last}))
    facts = gather(copy)
    assert (facts.baseline.row.name, facts.lines[0].row.name, facts.lines[0].number) == (last, last, 0)
    assert [line.row.name for line in facts.others] == [row.name for row in done.rows[:-1]]
    assert facts.unit == "byte"
    found = done.result_of(done.trials()[0])
    assert found is not None
    assert facts.others[0].outcomes[0].seconds == found["cpu_seconds"] != found["seconds"]


def test_a_study_with_two_seeds_says_nothing_of_what_it_would_find(done: Study) -> None:
    (note,) = gather(done.folder).notes
    drawn, level = "a bootstrap over seeds and documents", "the level that belongs to 2 comparisons"
    assert note == f"Intervals are from {drawn}, each at {level}"


# --------------------------------------------------------------------------- what is said


def test_findings_are_sentences_in_the_order_of_what_they_say() -> None:
    facts = simulated.study()
    said = [text for _, text in w.findings(facts)]
    nothing = "nothing can be told, the interval reaches from \u2212N to +N"
    assert [re.sub(r"[\d.]+", "N", text) for text in said] == [
        "without SimulatedNmomentum: worse by N nats (N to N)",
        "without SimulatedNretain: better by N nats (N to N)",
        f"SimulatedNrule = gd: {nothing}",
        f"replace SimulatedNstore by mlp(N * dim) |> f_N: {nothing}",
    ]
    for line, text in w.findings(facts):
        low, high = line.effects["loss"].low, line.effects["loss"].high
        shown = [float(n.replace(w.MINUS, "-")) for n in re.findall(r"[+\u2212]?\d\.\d+", text)[-2:]]
        ends = sorted(map(abs, (low, high))) if "by " in text.split(":")[-1] else [low, high]
        assert shown == pytest.approx(ends, abs=0.0051)


def test_under_five_seeds_nothing_is_concluded() -> None:
    facts = simulated.study(seeds=4)
    seen = html_of(facts)
    everything = [texts.as_text(facts), texts.as_markdown(facts), latex.as_latex(facts), seen.text]
    for text in everything:
        assert "too few" in text
        assert "signific" not in text.lower()
        assert not re.search(r"\b(worse|better) by\b", text)
    assert {row["verdict"] for row in csv.DictReader(io.StringIO(csvs.effects(facts)))} == {"too few seeds"}


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_fit_the_terminal(width: int) -> None:
    text = texts.as_text(simulated.study(states={(1, 2): "diverged"}, tasks=3), width=width)
    main, tasks = re.findall(r"(?m)^#.*\n-+\n(?:\d.*\n)+", text)
    assert max(len(row) for row in (main + tasks).splitlines()) <= width
    assert len({row.split("  ")[1] for row in main.splitlines()[2:]}) == 5  # cut names stay apart
    assert "without Simulated.momentum: diverged, seed 2 (the loss is not finite)" in text


def test_what_is_missing_is_said_with_its_reason() -> None:
    facts = simulated.study(
        states={(1, 2): "diverged", (2, 0): "waiting", (2, 1): "running", (3, 4): "stopped", (4, 4): "failed"}
    )
    said = " ".join(w.caveats(facts))
    assert "The study is not finished: 2 of 25 trials have not ended" in said
    assert "Training diverged: without Simulated.momentum (seed 2)" in said
    assert "Trials were stopped early: without Simulated.retain (seed 4)" in said
    assert ("without Simulated.momentum", "diverged, seed 2", "the loss is not finite") in w.reasons(facts)
    assert "seed 2 diverged and is left out" in html_of(facts).text
    unlucky = w.findings(simulated.study(states={(0, 2): "diverged", (2, 3): "diverged"}))
    assert all("seed 2 is left out, as the baseline diverged" in text for _, text in unlucky)
    assert sum("seed 3 diverged and is left out" in text for _, text in unlucky) == 1
    alike = simulated.study(states={(0, 2): "diverged", (2, 2): "diverged"})
    both = {line.number: text for line, text in w.findings(alike)}
    assert "seed 2 is left out, as the baseline diverged" in both[1]
    assert both[2].endswith("; seed 2 diverged and is left out")  # told once


def test_what_is_the_same_or_cannot_be_made_is_said() -> None:
    facts = simulated.study()
    same = replace(facts.lines[1].row, merged=("Simulated.momentum = 0",))
    broken = replace(facts.lines[2].row, problem="it matches nothing")
    lines = (facts.lines[0], replace(facts.lines[1], row=same), *facts.lines[2:])
    rows = w.reasons(replace(facts, lines=lines, broken=(broken,)))
    assert rows == [
        (broken.words, "cannot be made", "it matches nothing"),
        ("Simulated.momentum = 0", "left out", "the same spec as without Simulated.momentum"),
    ]


def test_a_legend_says_which_way_is_better() -> None:
    facts = simulated.study()
    assert "lower is better" in w.legend(facts)
    assert "higher is better" in w.legend(replace(facts, measures=("accuracy",)))


def test_an_effect_on_perplexity_is_in_percent() -> None:
    effect = Effect("v", "perplexity", 0.0213, 0.0101, 0.0327, scale="relative", seeds=5, verdict="worse")
    assert w.shift(effect.mean, effect, 3) == "+2.1 %"
    assert w.interval(effect, 4) == "+1.01 % to +3.27 %"


def test_trials_are_paired_with_the_baseline_of_their_seed() -> None:
    facts = simulated.study(states={(0, 1): "diverged", (2, 3): "failed"})
    base = {one.seed: one.measures["loss"] for one in facts.baseline.done}
    for line in facts.others:
        shown = [row[3].text.replace(w.MINUS, "-") for row in trials_table(line, facts).rows]
        for one, told in zip(line.outcomes, shown, strict=True):
            if one.seed not in base or not one.done:
                assert told == ""
            else:
                assert float(told) == pytest.approx(one.measures["loss"] - base[one.seed], abs=5e-5)
        found = dict(plots.paired(line, facts.baseline, "loss"))
        assert found == {s: v - base[s] for s, v in measured(line) if s in base}
        share = dict(plots.paired(line, facts.baseline, "loss", relative=True))
        assert share == {s: (v - base[s]) / base[s] for s, v in measured(line) if s in base}


def test_every_row_leads_to_its_own_spec_and_trials() -> None:
    facts = simulated.study(states={(2, 0): "diverged"})
    for number, row in enumerate(main_table(facts).rows):
        line, name = facts.lines[number], facts.lines[number].row.name
        assert (row[0].text, row[1].text) == (str(number), line.row.words)
        assert row[1].link == f"../variants/{name}/spec.nl"
        assert {cell.link for cell in row[2:6] if cell.link} == {f"../runs/{name}/"}
        seeds = [(cell.text, cell.link) for cell in row[6].more]
        done = range(1 if number == 2 else 0, 5)
        assert seeds == [(str(s), f"../runs/{name}/seed-{s}/report.html") for s in done]
        assert row[7].note == ("" if number == 0 else f"+{number}.0 %")  # ten parameters more of 1,000
        for one, cells in zip(line.outcomes, trials_table(line, facts).rows, strict=True):
            found = f"../runs/{name}/seed-{one.seed}/"
            assert cells[0].link == found
            assert cells[2].link == (f"{found}result.json" if one.done else "")


def test_the_page_counts_verdicts_and_leads_to_the_variant_that_is_meant() -> None:
    facts = simulated.study()
    worse = replace(
        facts.lines[4], effects={"loss": replace(facts.lines[4].effects["loss"], verdict="worse")}
    )
    text = page.as_html(replace(facts, lines=(*facts.lines[:4], worse)), {})
    tiles = {what: number for number, what in re.findall(r'tile"><b>([^<]*)</b><span>([^<]*)<', text)}
    assert (tiles["are worse"], tiles["are better"], tiles["of which nothing can be told"]) == ("2", "1", "1")
    links = re.findall(r'<a href="#v(\d+)">(\d+)</a>', text)
    assert all(place == shown for place, shown in links)
    assert sorted(int(place) for place, _ in links) == sorted([*range(5), *range(1, 5)])  # table and findings
    for line in facts.lines:
        about = text[text.index(f'id="v{line.number}"') :]
        assert about.index(line.row.digest[:16]) < about.index("</details>")
    assert (
        f"<small>{w.interval(worse.effects['loss'], w.digits_for([worse.effects['loss']]))}</small>" in text
    )
    tones = dict(re.findall(r'<li class="(\w+)"><a href="#v(\d)"', text))
    assert tones.keys() == {"worse", "better", "soft"}


def test_what_has_no_number_is_empty_for_programs() -> None:
    facts = simulated.study(states={(2, 0): "waiting"})
    rows = {(row["variant"], row["seed"]): row for row in csv.DictReader(io.StringIO(csvs.runs(facts)))}
    one, other = rows["v2", "0"], rows["v2", "1"]
    assert (one["state"], one["step"], one["steps"], one["loss"]) == ("waiting", "0", "100", "")
    assert float(other["loss"]) == facts.lines[2].outcomes[1].measures["loss"]
    for row in csv.DictReader(io.StringIO(csvs.effects(facts))):
        assert (row["p"], row["baseline"]) == ("", "base")


def measured(line: Line) -> list[tuple[int, float]]:
    return [(one.seed, one.measures["loss"]) for one in line.done]


def test_numbers_over_seeds_are_of_the_trials_that_are_done() -> None:
    ends = [Outcome(i, "done", "", {"loss": x}, seconds=10.0 * x) for i, x in enumerate((2.0, 3.0, 7.0))]
    ends.append(Outcome(3, "stopped", "", {"loss": 9.0}, seconds=500.0))
    line = replace(simulated.study().lines[1], outcomes=tuple(ends))
    assert line.mean("loss") == 4
    assert line.spread("loss") == pytest.approx(7**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert line.seconds == 30


def test_what_was_widened_to_hold_a_budget_is_in_every_report() -> None:
    facts = simulated.study()
    wide = replace(facts.lines[1].row, matched="Simulated.hidden 32 -> 39 holds parameters: -0.1%")
    lines = (facts.lines[0], replace(facts.lines[1], row=wide), *facts.lines[2:])
    facts = replace(facts, lines=lines, keep=Keep("parameters", 0.02))
    told = "In without Simulated.momentum, Simulated.hidden 32 -> 39 holds parameters: -0.1%."
    assert w.method(facts)[-2:] == ["Held equal within 2%: parameters.", told]
    for text in (texts.as_text(facts, width=200), texts.as_markdown(facts), html_of(facts).text):
        assert told in text
    assert latex.escaped(told) in latex.as_latex(facts)


def test_a_study_in_which_nothing_is_done_has_a_report() -> None:
    states = {(i, seed): "waiting" for i in range(5) for seed in range(5)}
    facts = simulated.study(states=states)  # pyright: ignore[reportArgumentType]
    assert report.pictures_of(facts) == {}
    assert "nothing can be compared" in html_of(facts).text
    assert "no trial is done" in texts.as_text(facts)
    assert latex.as_latex(facts).count(r"\midrule") == 2


def test_a_trial_that_has_just_begun_or_diverged_does_not_end_the_curve_of_its_variant() -> None:
    long, short = ((0, 4.0), (50, 3.0), (100, 2.0)), ((0, 9.0), (50, 9.0))
    done, begun, lost = (
        Outcome(0, "done", curve=long),
        Outcome(1, "running", curve=short),
        Outcome(2, "diverged"),
    )
    assert plots.settled([done, begun, lost]) == [done]
    assert plots.settled([begun, lost]) == [begun]


def test_a_large_study_is_drawn_whole() -> None:
    facts = simulated.study(variants=18, seeds=6)  # more than get colours, and than fit four columns
    pictures = report.pictures_of(facts)
    assert set(pictures) == {"effects", "differences", "curves", "costs"}
    for line in facts.others:
        assert f"{line.number}  " in pictures["differences"]
    assert html_of(facts).open == []


def test_tasks_are_drawn_and_told() -> None:
    facts = simulated.study(tasks=3)
    assert "forgetting" in report.pictures_of(facts)
    assert "just after learning" in html_of(facts).text


def test_words_are_escaped_everywhere() -> None:
    facts = simulated.study()
    assert r"mlp(2 \* dim) \|> f\_1" in texts.as_markdown(facts)
    assert r"mlp(2 * dim) \textbar{}\textgreater{} f\_1" in latex.as_latex(facts)
    assert "mlp(2 * dim) |> f_1" in html_of(facts).text
    assert "|> f_1" not in page.as_html(facts, {})


def test_rows_of_latex_name_the_seeds_that_are_in_them() -> None:
    text = latex.as_latex(simulated.study(states={(2, 0): "diverged"}))
    for number, seeds in ((1, "0, 1, 2, 3, 4"), (2, "1, 2, 3, 4")):
        assert f"% variants/v{number}/spec.nl; runs/v{number}/seed-N, N = {seeds}\n" in text


def test_a_page_that_lies_elsewhere_has_links_from_there_or_none() -> None:
    facts = simulated.study(states={(1, 0): "diverged"})
    links = re.findall(r"\]\(([^)]+)\)", texts.as_markdown(facts, base="study/report/"))
    assert links and all(link.startswith("study/report/../") for link in links)
    assert "](" not in texts.as_markdown(facts, base="-")
    rows = [re.split(r"  +", row) for row in texts.as_text(facts, width=200).splitlines()]
    seeds = {row[1]: row for row in rows if len(row) > 5}
    assert "4" in seeds["without Simulated.momentum"] and "5" not in seeds["without Simulated.momentum"]


def test_latex_is_balanced_and_its_rows_have_all_columns() -> None:
    text = latex.as_latex(simulated.study())
    plain = re.sub(r"\\[\\{}$&#%_]", "", re.sub(r"(?m)^%.*\n", "", text))
    assert plain.count("{") == plain.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", text)
    assert columns is not None
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(rows) == 6
    assert {re.sub(r"\\&", "", row).count("&") + 1 for row in rows} == {len(columns[1])}
