"""Files that cannot be read or written: one clear message, exit code 2."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nldsl.run import files

Run = Callable[..., Any]


@pytest.fixture
def folder(here: Path, api: Any) -> Path:
    (here / "hope.nl").write_text("good")
    (here / "titans.yaml").write_text("edition: 2026")
    (here / "empty").mkdir()
    (here / "picture.nl").write_bytes(b"\x89PNG\0\0")
    (here / "latin.nl").write_bytes(b"good\n\ncaf\xe9\n")
    (here / "wide.nl").write_bytes("good".encode("utf-16"))
    return here


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hoppe.nl", "error: `hoppe.nl` does not exist\n  = help: did you mean `hope.nl`?"),
        ("titans.nl", "error: `titans.nl` does not exist\n  = help: did you mean `titans.yaml`?"),
        ("none/a.nl", "error: `none/a.nl` does not exist\n  = help: the folder `none` does not exist either"),
        ("empty/qqq.nl", "= help: `empty` holds no .nl or YAML file"),
        ("empty", "error: no .nl file and no YAML spec is below `empty`"),
        ("picture.nl", "error: `picture.nl` is a binary file: byte 4 is zero"),
        ("latin.nl", "error: `latin.nl` is not UTF-8: byte 0xe9 in line 3, at byte 4 of the line"),
        ("wide.nl", "error: `wide.nl` is UTF-16 text, and a spec is UTF-8"),
        ("hope.nl/x.nl", "error: "),
        ("x" * 300 + ".nl", "error: "),
    ],
)
def test_unreadable(folder: Path, nl: Run, path: str, message: str) -> None:
    result = nl("check", path)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("verb", [["graph"], ["expand"], ["train"], ["compile", "-o", "out"], ["explain"]])
def test_every_verb_that_reads_a_spec_says_so(folder: Path, nl: Run, verb: list[str], stand_in: Any) -> None:
    stand_in.module("nldsl.run.train", train=stand_in.recorder("train", 0))
    result = nl(*verb, "hoppe.nl")
    assert result.code == 2
    assert "did you mean `hope.nl`?" in result.err


def test_a_folder_where_a_file_is_meant(folder: Path, nl: Run) -> None:
    result = nl("expand", ".")
    assert result.code == 2
    assert "`.` is a folder, and a file is needed" in result.err
    assert "`hope.nl`" in result.err


def test_a_file_without_permission(folder: Path, nl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    result = nl("check", "hope.nl")
    assert (result.code, result.err) == (2, "error: cannot read `hope.nl`: permission denied\n")


def test_a_huge_file(folder: Path, nl: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "huge.nl").open("wb") as file:
        file.truncate(files.LARGEST_SPEC + 1)
    assert "`huge.nl` holds 16 MiB" in nl("check", "huge.nl").err


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_the_file_from_before(
    folder: Path, nl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.nl").write_text("bad")
    monkeypatch.setattr(os, "fsync", full_disk)
    result = nl("check", "a.nl", "--fix")
    assert result.code == 2
    assert "cannot write `a.nl`: the disk is full" in result.err
    assert "the file from before is unchanged" in result.err
    assert (folder / "a.nl").read_text() == "bad"
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]


def test_a_target_whose_folder_is_missing(folder: Path, nl: Run) -> None:
    result = nl("expand", "hope.nl", "-o", "none/out.nl")
    assert result.code == 2
    assert "cannot write `none/out.nl`: no such file or folder" in result.err
    assert "make the folder first" in result.err


def test_a_target_that_is_a_folder(folder: Path, nl: Run) -> None:
    assert "cannot write `empty`: it is a folder" in nl("expand", "hope.nl", "-o", "empty").err


def test_writing_keeps_links_and_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write_text(link, "new\r\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"new\r\n"
    assert real.stat().st_mode & 0o777 == 0o640
    files.write_bytes("/dev/null", b"x")


def test_make_folder(tmp_path: Path) -> None:
    assert files.make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(files.FileProblem, match="is a file"):
        files.make_folder(tmp_path / "file")
