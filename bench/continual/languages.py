"""Texts in several languages: the help of LibreOffice, taken from Debian's packages when the study runs."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path

LANGUAGES = ("en-gb", "de", "fi", "eu")
BYTES = 400_000


def fetch(folder: Path) -> None:
    """Write `LANGUAGE.txt` into `folder`, the same pages in each; raises `OSError` or `CalledProcessError`.

    Packages are downloaded with apt and unpacked, not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{language}.txt").is_file() for language in LANGUAGES):
        return
    pages = {language: _pages(folder / "packages" / language, language) for language in LANGUAGES}
    common = sorted(set.intersection(*(set(found) for found in pages.values())))
    english = {paragraph for found in pages[LANGUAGES[0]].values() for paragraph in found}
    for language, found in pages.items():
        paragraphs = (paragraph for page in common for paragraph in found[page])
        own = (p for p in paragraphs if language == LANGUAGES[0] or p not in english)  # not yet translated
        text = "\n".join(own).encode("utf-8")
        (folder / f"{language}.txt").write_bytes(text[:BYTES].rsplit(b"\n", 1)[0] + b"\n")


def _pages(folder: Path, language: str) -> dict[str, list[str]]:
    """The paragraphs of every page by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    package = f"libreoffice-help-{language}"
    if not list(folder.glob("*.deb")):
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, capture_output=True)
    archive = next(folder.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / "files")], check=True, capture_output=True)
    found: dict[str, list[str]] = {}
    for path in sorted((folder / "files").rglob("text/**/*.html")):
        page = path.as_posix().split("/text/")[1]
        written = path.read_text(encoding="utf-8", errors="replace")
        paragraphs = re.findall(r'(?is)<p[^>]*class="paragraph"[^>]*>(.*?)</p>', written)
        plain = (html.unescape(re.sub(r"<[^>]+>", " ", one)) for one in paragraphs)
        found[page] = [" ".join(one.split()) for one in plain if one.strip()]
    return found
