"""Put the report of a study into docs/ablations.md: `python scripts/ablation_page.py STUDY [--page FILE]`.

The page holds `<!-- made: hope_table6 -->` and `<!-- end -->`; what stands between them is written anew, and
so are its pictures.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ablations.md"
PICTURES = ("effects", "differences")

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))


def section(study: Path, name: str) -> tuple[str, dict[str, str]]:
    """The report of `study` as a part of a page, and its pictures by their file names."""
    from nldsl.ablate.report import PICTURES as KNOWN
    from nldsl.ablate.report import pictures_of, texts
    from nldsl.ablate.report.gather import gather

    facts = gather(study)
    drawn = pictures_of(facts)
    files = {f"{name}-{kind}.svg": f"{drawn[kind]}\n" for kind in PICTURES if kind in drawn}
    shown = [(f"pictures/{name}-{kind}.svg", KNOWN[kind]) for kind in PICTURES if kind in drawn]
    return texts.as_markdown(facts, top=3, pictures=shown, base="-"), files


def put(page: str, name: str, text: str) -> str:
    """`page` with `text` between the marks of `name`; raises `ValueError` where it has none."""
    marks = re.compile(rf"(<!-- made: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    changed, count = marks.subn(lambda found: f"{found[1]}\n{text}\n{found[2]}", page)
    if count != 1:
        raise ValueError(f"the page has {count} places for `{name}`")
    return changed


def main() -> None:
    """Write the page and the pictures."""
    parser = argparse.ArgumentParser(description="Put the report of a study into docs/ablations.md.")
    parser.add_argument("study", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--name", default="hope_table6", help="of the marks in the page")
    given = parser.parse_args()
    text, files = section(given.study, given.name)
    page = given.page.read_text(encoding="utf-8")
    pictures = given.page.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for file, content in files.items():
        (pictures / file).write_text(content, encoding="utf-8", newline="\n")
    given.page.write_text(put(page, given.name, text), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
