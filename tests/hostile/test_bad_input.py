"""What a hostile user types, and what the command line has to say: never a bug or a traceback."""

import io
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from nldsl.cli import main
from nldsl.codegen.runtime import FILES

SPEC = """edition 2026

import [DeltaNet, Continuum] from std

block Layer(dim) {
  mixer: x = x + (x |> rmsnorm |> DeltaNet(dim))
  store: x = x + (x |> rmsnorm |> Continuum(dim, hidden = dim, middle = 2 steps, slow = 4 steps))
}

model Small(dim = 16, depth = 2, vocab = 256) {
  tokens |> embed(vocab, dim) |> repeat(depth, Layer(dim)) |> rmsnorm |> unembed(tied)
}

train Run {
  model = Small(dim = 16)
  data  = text("sotu", length = 32, batch = 2)
  steps = 4
  level pretrain { learns = rest, rule = adamw(rate = 3e-3) }
}
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a scratch folder; the exit code, and all it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def spec(old: str = "", new: str = "", name: str = "a.nl") -> str:
    """Write `SPEC` with `old` replaced by `new`; its name."""
    assert not old or old in SPEC
    Path(name).write_text(SPEC.replace(old, new, 1) if old else SPEC, encoding="utf-8")
    return name


# ------------------------------------------------------------------------------ depth

DEEP = {
    "minus": ("steps = 4", "steps = " + "-" * 4000 + "4"),
    "power": ("steps = 4", "steps = 4" + "^1" * 3000),
    "sum": ("steps = 4", "steps = 4" + "+0" * 5000),
    "calls": ("steps = 4", "steps = " + "abs(" * 1000 + "4" + ")" * 1000),
    "lists": ("learns = rest", "learns = " + "[" * 1000 + "rest" + "]" * 1000),
    "stages": ("|> rmsnorm |> unembed", "|> silu " * 2000 + "|> unembed"),
    "braces": ("edition 2026\n", "edition 2026\n" + "block A {\n" * 500 + "}\n" * 500),
}


@pytest.mark.parametrize("verb", ["check", "fmt", "convert", "expand"])
@pytest.mark.parametrize("kind", DEEP)
def test_deep_values_are_findings(run: Run, verb: str, kind: str) -> None:
    more = {"fmt": ["--check"], "convert": ["--to", "yaml"]}.get(verb, [])
    code, said = run(verb, spec(*DEEP[kind]), *more)
    assert (code, "NL0111" in said) == (1, True), said[:500]


def test_values_up_to_the_bound_pass_every_verb(run: Run) -> None:
    name = spec("steps = 4", "steps = 4" + "+0" * 90)
    for arguments in (["check"], ["fmt", "--check"], ["convert", "--to", "yaml"], ["expand"]):
        code, said = run(arguments[0], name, *arguments[1:])
        assert code in (0, 1) and "NL0111" not in said and "bug" not in said


def test_a_thousand_parentheses_are_fine(run: Run) -> None:
    assert run("check", spec("steps = 4", "steps = " + "(" * 1000 + "4" + ")" * 1000))[0] == 0


def test_blocks_within_blocks_within_blocks(run: Run) -> None:
    chain = "".join(f"block B{i}(dim) {{ x = x |> B{i - 1}(dim) }}\n" for i in range(1, 500))
    head = "edition 2026\nblock B0(dim) { x = x |> linear }\n"
    model = "model M(dim = 16) { tokens |> embed(256, dim) |> B499(dim) |> unembed(tied) }\n"
    Path("a.nl").write_text(head + chain + model)
    code, said = run("check", "a.nl")
    assert code == 1 and said.count("error[NL0216]") == 1 and "bug" not in said


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 2000 + "]" * 2000 + "\n",
        "".join(" " * i + f"block A{i}:\n" for i in range(600)),
    ],
)
def test_deep_yaml_is_a_finding(run: Run, text: str) -> None:
    Path("a.yaml").write_text("edition: 2026\n" + text)
    code, said = run("check", "a.yaml")
    assert (code, "NL0111" in said) == (1, True)


# ------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, "1e400", "10^10^10^10", "9^9^9", "(0 - 1)^0.5", "(-8)^(-0.5)", "2^10000.5", "0^(-1)", "1/0"],
)
def test_numbers_without_a_value(run: Run, number: str) -> None:
    code, said = run("check", spec("rate = 3e-3", f"rate = {number}"))
    assert (code, "NL0205" in said) == (1, True), said[:500]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dim = 16)\n", "dim = 16.0)\n", "write `16`"),
        ("hidden = dim", "hidden = 0", "a hidden width is 0"),
        ("steps = 4", "steps = 4, seed = 10^30", "more than 2^53"),
        ("rmsnorm |> unembed", "dropout(1) |> unembed", "the `by` of `dropout` is 1"),
        ("rmsnorm |> unembed", "sigmoid(start = 1) |> unembed", "the `start` of `sigmoid` is 1"),
        ("dim = 16)\n", "dim = sixteen)\n", "`sixteen` is not a number"),
        ("middle = 2 steps", "middle = -2 steps", "put the arithmetic in parentheses"),
    ],
)
def test_numbers_that_do_not_fit(run: Run, old: str, new: str, words: str) -> None:
    code, said = run("check", spec(old, new))
    assert code == 1 and words in said, said


@pytest.mark.parametrize(
    ("given", "words"),
    [("0 steps", "a period is 0"), ("4", "write `4 tokens` or `4 steps`"), ("1.5 steps", "a period is 1.5")],
)
def test_a_wrong_argument_is_shown_where_it_was_given(run: Run, given: str, words: str) -> None:
    code, said = run("check", "--format", "concise", spec("middle = 2 steps", f"middle = {given}"))
    assert code == 1 and said.startswith("a.nl:7:")
    assert words in run("check", "a.nl")[1]


def test_a_finding_has_one_place_however_often_it_is_asked_for(run: Run) -> None:
    name = spec("slow = 4 steps", "slow = 64 steps")
    said = {run("check", "--format", "concise", name)[1] for _ in range(3)}
    assert len(said) == 1 and said.pop().startswith("a.nl:")


# ------------------------------------------------------------------------------ files


def test_links(run: Run, tmp_path: Path) -> None:
    Path("loop.nl").symlink_to("loop.nl")
    Path("dangling.nl").symlink_to("/nowhere/spec.nl")
    assert run("check", "loop.nl") == (2, "error: cannot read `loop.nl`: its symbolic links form a circle\n")
    code, said = run("check", "dangling.nl")
    assert code == 2 and "is a link to `/nowhere/spec.nl`" in said and "did you mean" not in said
    assert run("check", "")[0] == 2


def test_a_text_stays_in_the_folder_and_off_the_code(run: Run, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-secret.txt"
    outside.write_text("secret " * 1000)
    Path("link.txt").symlink_to(outside)
    code, said = run("compile", spec('"sotu"', '"link.txt"'), "-o", "out")
    assert (code, "leads outside" in said, Path("out").exists()) == (1, True, False)
    for name in ("model.py", "levels.json", "helper.py", *FILES):
        Path(name).write_text("my own text " * 1000)
        code, said = run("compile", spec('"sotu"', f'"{name}"'), "-o", "out")
        assert (code, "NL0704" in said, Path("out").exists()) == (1, True, False)


def test_a_corpus_that_is_misspelt(run: Run) -> None:
    code, said = run("check", spec('"sotu"', '"sotuu", split = manifest'))
    assert code == 1 and "maybe `sotu`" in said


def test_a_build_that_does_not_fit_on_the_disk_leaves_nothing(run: Run) -> None:
    name = spec()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        code, said = run("compile", name, "-o", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "cannot write" in said and not list(Path("out").iterdir())
    assert run("compile", name, "-o", "out")[0] == 0  # without --force


@pytest.mark.parametrize(("old", "new"), [("dim = 16)\n", "dim = 10^9)\n"), ("depth = 2,", "depth = 10^12,")])
def test_a_run_that_no_memory_holds_is_refused_before_it_starts(run: Run, old: str, new: str) -> None:
    code, said = run("train", spec(old, new), "--device", "cpu")
    assert code == 1 and "NL0810" in said and not Path("build").exists()
