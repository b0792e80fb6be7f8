"""Sphinx settings: `make docs` builds these pages into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nldsl import __version__  # noqa: E402
from nldsl.syntax.words import HEADS  # noqa: E402

project = "nldsl"
author = "The nldsl authors"
copyright = author
version = release = __version__

extensions = ["myst_parser"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"nldsl {__version__}"
html_static_path = ["static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build"]


class NlLexer(RegexLexer):
    """Colours for specs."""

    name = "nl"
    aliases: ClassVar[list[str]] = ["nl"]
    tokens: ClassVar[dict] = {
        "root": [
            (r"#[^\n]*", Comment.Single),
            (r'"(?:[^"\\\n]|\\.)*"', String),
            (words(sorted(HEADS), prefix=r"(?:^|(?<=[{,] ))[ \t]*", suffix=r"\b(?!\s*=)"), Keyword),
            (r"\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?", Number),
            (r"\|>|[-+*/^=%]", Operator),
            (r"[A-Z]\w*", Name.Class),
            (r"[a-z_]\w*(?=\s*=)", Name.Attribute),
            (r"[a-z_]\w*(?=\()", Name.Function),
            (r"\w+", Name),
            (r"[{}()\[\],:.]", Punctuation),
            (r"\n|[ \t]+", Text),
        ]
    }


def setup(app) -> None:  # noqa: ANN001  -- Sphinx is no dependency of the type check
    """Make `nl` a language of code blocks."""
    app.add_lexer("nl", NlLexer)
