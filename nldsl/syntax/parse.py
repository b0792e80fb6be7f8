"""`.nl` text to the statement tree, going on after every mistake.

The parser is lark's LALR parser, driven token by token: this module drops the newlines that do not
end a statement, and when the parser stops it says why, skips to the end of the broken statement, and
feeds `ERROR` in its place, so that the rest of the file is still read.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedToken
from lark.parsers.lalr_interactive_parser import InteractiveParser

from nldsl.diagnostics.model import Diagnostic, Edit, Fix, Label, Source, Span
from nldsl.document import expr as e
from nldsl.grammar import messages
from nldsl.syntax.build import Builder
from nldsl.syntax.comments import CommentBook, find_comments
from nldsl.syntax.nesting import shallow
from nldsl.syntax.parser_tables import parser
from nldsl.syntax.recover import indent_at, matching_close, statement_end, unclosed_by_indent

MAX_FINDINGS = 50

_OPERATORS = frozenset(("PLUS", "MINUS", "STAR", "SLASH", "CARET", "EQUAL", "PIPE", "COLON"))
_OPENERS = {"CALL": "(", "LPAR": "(", "LSQB": "["}
_CLOSERS = {"RPAR": "(", "RSQB": "[", "RBRACE": "{"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NEW_STATEMENT = re.compile(r"[ \t\r]*(?:[A-Za-z_][A-Za-z0-9_.]*[ \t]*(?:=|:|[A-Za-z_])|\}|\Z)")
_LOCK = threading.Lock()


def parse_nl(source: Source) -> tuple[e.Body, list[Diagnostic]]:
    """The statements of an `.nl` file with every syntax finding; what could be read is always returned."""
    text, findings = _clean(source)
    if any(f.code == "NL0004" for f in findings):
        return e.Body((), span=Span(source, 0, len(source.text))), findings
    body, more = _parse(source, text)
    found = _limited(source, findings + more)
    if not body.statements and not found:
        found = [_empty(source)]
    return body, found


def parse_expression(source: Source) -> tuple[e.Expr | None, list[Diagnostic]]:
    """One value, as after an `=`; for `--set path=value` and YAML scalars."""
    text, findings = _clean(source)
    if findings:
        return None, findings
    body, findings = _parse(source, text, one_value=True)
    if findings:
        return None, findings
    whole = Span(source, 0, len(text))
    if not body.statements:
        return None, [Diagnostic("NL0106", "a value is missing", (Label(whole, "nothing here"),))]
    first = body.statements[0]
    if len(body.statements) > 1 or first.target is not None or first.label is not None:
        return None, [
            Diagnostic(
                "NL0107",
                f"expected one value, found `{source.text.strip()}`",
                (Label(first.span or whole, "not a single value"),),
                help="a value is an expression; `=` and `,` stand outside of it",
            )
        ]
    return first.value, []


def parse_statements(source: Source) -> tuple[e.Body, list[Diagnostic]]:
    """Like `parse_nl`, for a piece of a file: nothing at all is no finding."""
    text, findings = _clean(source)
    body, more = _parse(source, text)
    return body, findings + more


def _clean(source: Source) -> tuple[str, list[Diagnostic]]:
    """The text to parse, as long as the source's, and a finding when it holds control characters."""
    text = source.text
    if text.startswith("\ufeff"):
        text = " " + text[1:]
    control = _CONTROL.search(text)
    if control is None:
        return text, []
    span = Span(source, control.start(), control.end())
    message = f"the file holds the control character `\\x{ord(control.group()):02x}`"
    return text, [
        Diagnostic(
            "NL0004",
            message,
            (Label(span, "here"),),
            help="a spec is plain UTF-8 text; is this a binary file?",
        )
    ]


def _empty(source: Source) -> Diagnostic:
    return Diagnostic(
        "NL0001",
        "the file holds no declaration",
        (Label(Span(source, 0, min(len(source.text), 1)), "nothing to compile"),),
        help="a spec starts with `edition 2026` and declares a `memory`, `block`, `model` or `train`",
    )


def _limited(source: Source, findings: list[Diagnostic]) -> list[Diagnostic]:
    if len(findings) <= MAX_FINDINGS:
        return findings
    last = findings[MAX_FINDINGS - 1]
    note = Diagnostic(
        "NL0108",
        f"only the first {MAX_FINDINGS} syntax findings of `{source.name}` are shown",
        last.labels[:1],
        severity="note",
    )
    return [*findings[:MAX_FINDINGS], note]


def _parse(source: Source, text: str, *, one_value: bool = False) -> tuple[e.Body, list[Diagnostic]]:
    lark, builder = parser()
    with _LOCK:
        reader = _Reader(lark, builder, source, text, one_value=one_value)
        body = reader.run({})
        if reader.unclosed and not one_value:
            body = _second_reading(lark, builder, source, text, reader) or body
            findings = reader.findings
        else:
            findings = reader.findings
    body, deep = shallow(body)
    start = [d for d in findings + deep if d.labels]
    return body, sorted(start, key=lambda d: d.labels[0].span.start)


def _second_reading(
    parser: Lark, builder: Builder, source: Source, text: str, first: _Reader
) -> e.Body | None:
    """Read again, the unclosed braces closed where the indentation says; None if it says nothing."""
    guesses = unclosed_by_indent(text)
    if len(guesses) > len(first.unclosed):
        return None
    again = _Reader(parser, builder, source, text)
    closing: dict[int, int] = {}
    for _, position in guesses:
        closing[position] = closing.get(position, 0) + 1
    body = again.run(closing)
    if again.unclosed and len(again.unclosed) + len(guesses) > len(first.unclosed):
        return None
    first.findings = again.findings + [unclosed_brace(source, opening) for opening, _ in guesses]
    return body


def unclosed_brace(source: Source, opening: int) -> Diagnostic:
    """The finding for the `{` at `opening`."""
    return Diagnostic(
        "NL0101",
        "this `{` is never closed",
        (Label(Span(source, opening, opening + 1), "opened here"),),
        help="close it with `}`",
    )


@dataclass(slots=True)
class _Frame:
    """An open bracket, or the file: where it opened, and where its current statement began."""

    kind: str
    start: int
    statement: int | None = None
    dangling: tuple[Token, int] | None = None  # the operator, and the ignored line end after it


@dataclass
class _Reader:
    """One reading of one text."""

    lark: Lark
    builder: Builder
    source: Source
    text: str
    one_value: bool = False
    findings: list[Diagnostic] = field(default_factory=list)
    unclosed: list[int] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)

    def run(self, closing: dict[int, int]) -> e.Body:
        """The tree; `closing` says before which line starts how many `}` are missing."""
        self.builder.begin(self.source, self.text, CommentBook(self.text, find_comments(self.text)))
        self.frames = [_Frame("", 0)]
        self.closing = closing
        parser = self.lark.parse_interactive(self.text)
        while True:
            try:
                body = self._read(parser)
                self.findings += self.builder.findings
                return body
            except UnexpectedToken as stop:
                self._recover(parser, stop.token)
            except UnexpectedCharacters as stop:
                self._recover(
                    parser, Token("STRAY", self.text[stop.pos_in_stream], start_pos=stop.pos_in_stream)
                )

    def _read(self, parser: InteractiveParser) -> e.Body:
        state, frames, text = parser.parser_state, self.frames, self.text
        last: Token | None = None
        for token in parser.lexer_thread.lex(state):
            kind = token.type
            frame = frames[-1]
            if kind == "_NL":
                if frame.kind in "([" and frame.kind:
                    continue
                if self.one_value or text.startswith("|>", token.end_pos):
                    continue
                if last is not None and last.type in _OPERATORS:
                    frame.dangling = (last, token.start_pos or 0)
                    continue
                self._end_statement(frame)
                state.feed_token(token)
                self._close_here(parser, token)
                last = token
                continue
            if kind in _CLOSERS and frame.kind != _CLOSERS[kind]:
                raise UnexpectedToken(token, set(), state=state)
            if frame.statement is None and kind != "COMMA":
                frame.statement = token.start_pos
            state.feed_token(token)
            last = token
            if kind in _OPENERS:
                frames.append(_Frame(_OPENERS[kind], (token.end_pos or 0) - 1))
            elif kind == "LBRACE":
                frames.append(_Frame("{", token.start_pos or 0))
            elif kind in _CLOSERS:
                frames.pop()
            elif kind == "COMMA" and frame.kind in ("", "{"):
                self._end_statement(frame)
        end = Token("$END", "", start_pos=len(text), end_pos=len(text))
        return state.feed_token(end, True)

    def _end_statement(self, frame: _Frame) -> None:
        frame.statement, frame.dangling = None, None

    def _close_here(self, parser: InteractiveParser, newline: Token) -> None:
        """Feed the closing braces that are missing before the line that `newline` leads to."""
        at = newline.end_pos or 0
        for _ in range(self.closing.pop(at, 0)):
            if self.frames[-1].kind != "{":
                return
            self.frames.pop()
            parser.parser_state.feed_token(
                Token("RBRACE", "}", start_pos=newline.start_pos, end_pos=newline.start_pos)
            )
            self._end_statement(self.frames[-1])
            parser.parser_state.feed_token(newline)

    # -- after a mistake -----------------------------------------------------------------

    def _recover(self, parser: InteractiveParser, token: Token) -> None:
        """Report the mistake at `token`, and put the parser behind the statement that holds it."""
        if token.type == "$END" and self._only_braces_open(parser):
            self._close_all(parser, token)
            return
        brackets = self._open_brackets()
        frame = self.frames[-1 - len(brackets)]
        finding, resume = self._judge(parser, token, frame, brackets)
        self.findings.append(finding)
        del self.frames[len(self.frames) - len(brackets) :]
        self._feed_error(parser, frame, resume, token)

    def _open_brackets(self) -> list[_Frame]:
        open_ones: list[_Frame] = []
        for frame in reversed(self.frames):
            if frame.kind in ("", "{"):
                break
            open_ones.insert(0, frame)
        return open_ones

    def _only_braces_open(self, parser: InteractiveParser) -> bool:
        return self.frames[-1].kind == "{" and _position(parser) != "value"

    def _close_all(self, parser: InteractiveParser, end: Token) -> None:
        at = end.start_pos or len(self.text)
        opened = [f.start for f in self.frames if f.kind == "{"]
        self.unclosed += opened
        self.findings.append(unclosed_brace(self.source, opened[-1]))
        while self.frames[-1].kind == "{":
            self.frames.pop()
            parser.feed_token(Token("RBRACE", "}", start_pos=at, end_pos=at))
        _move(parser, at)

    def _feed_error(self, parser: InteractiveParser, frame: _Frame, resume: int, token: Token) -> None:
        state = parser.parser_state
        start = frame.statement if frame.statement is not None else token.start_pos or 0
        if token.type in ("RPAR", "RSQB") and "_NL" in parser.accepts():
            # What stands before a bracket that closes nothing is whole: keep it as a statement of its own.
            at = token.start_pos or 0
            state.feed_token(Token("_NL", "", start_pos=at, end_pos=at))
            start = at
        depth = sum(f.kind == "{" for f in self.frames)
        while "ERROR" not in parser.choices() or _open_braces(parser) > depth:
            state.state_stack.pop()
            state.value_stack.pop()
        self._end_statement(frame)
        state.feed_token(Token("ERROR", "", start_pos=min(start, resume), end_pos=resume))
        _move(parser, resume)

    def _judge(
        self, parser: InteractiveParser, token: Token, frame: _Frame, brackets: list[_Frame]
    ) -> tuple[Diagnostic, int]:
        """The finding for a stop at `token`, and the place where reading goes on."""
        at, text = token.start_pos or 0, self.text
        if token.type == "$END":
            at = len(text)
        position = _position(parser)
        if token.type == "STRAY" and text[at] == '"':
            begin = frame.statement if frame.statement is not None else at
            return self._stray(at), statement_end(
                text, at, indent=indent_at(text, begin) if brackets else None
            )
        missing = self._missing_value(token, frame, position, brackets)
        if missing is not None:
            return missing
        if brackets:
            inner = brackets[-1]
            wrong_close = token.type in _CLOSERS and _CLOSERS[token.type] != inner.kind
            if wrong_close or token.type == "$END" or matching_close(text, inner.start) is None:
                begin = frame.statement if frame.statement is not None else inner.start
                line_end = statement_end(text, inner.start + 1, indent=indent_at(text, begin))
                return self._unclosed_bracket(inner), line_end
            outer_close = matching_close(text, brackets[0].start)
            resume = statement_end(text, at if outer_close is None else outer_close + 1)
        elif token.type in ("RPAR", "RSQB") or (token.type == "RBRACE" and frame.kind == ""):
            return self._extra_close(token), statement_end(text, at + 1)
        else:
            resume = statement_end(text, at)
        if token.type == "STRAY":
            return self._stray(at), max(resume, at + 1) if text[at] != "}" else resume
        return self._unexpected(token, position, brackets, at), resume

    def _span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def _missing_value(
        self, token: Token, frame: _Frame, position: messages.Position, brackets: list[_Frame]
    ) -> tuple[Diagnostic, int] | None:
        at = len(self.text) if token.type == "$END" else token.start_pos or 0
        if frame.dangling is not None and not brackets:
            operator, line_end = frame.dangling
            if token.type == "$END" or _NEW_STATEMENT.match(self.text, line_end + 1):
                return self._no_value(operator.start_pos or 0, str(operator)), line_end
        if position != "value":
            return None
        closes = token.type in _CLOSERS and bool(brackets) and _CLOSERS[token.type] == brackets[-1].kind
        ends = token.type in ("$END", "RBRACE", "COMMA", "_NL") and not brackets
        if not closes and not ends and not (token.type == "COMMA" and brackets):
            return None
        before = self.text[:at].rstrip()
        if before.endswith((",", "(", "[")):
            return None
        width = 2 if before.endswith("|>") else 1
        end = matching_close(self.text, brackets[0].start) if brackets else at
        if end is None:
            return None
        resume = statement_end(self.text, end + (1 if brackets else 0))
        return self._no_value(len(before) - width, before[-width:]), resume

    def _no_value(self, at: int, operator: str) -> Diagnostic:
        span = self._span(at, at + len(operator))
        return Diagnostic(
            "NL0106", f"a value is missing after `{operator}`", (Label(span, "nothing follows"),)
        )

    def _unclosed_bracket(self, bracket: _Frame) -> Diagnostic:
        closer = ")" if bracket.kind == "(" else "]"
        return Diagnostic(
            "NL0103",
            f"this `{bracket.kind}` is never closed",
            (Label(self._span(bracket.start, bracket.start + 1), "opened here"),),
            help=f"close it with `{closer}`",
        )

    def _extra_close(self, token: Token) -> Diagnostic:
        at = token.start_pos or 0
        return Diagnostic(
            "NL0102",
            f"this `{token}` closes nothing",
            (Label(self._span(at, at + 1), "no bracket is open here"),),
            help="remove it, or open it where it belongs",
        )

    def _stray(self, at: int) -> Diagnostic:
        text, character = self.text, self.text[at]
        line_end = text.find("\n", at)
        line_end = len(text) if line_end < 0 else line_end
        if character == '"':
            end = at + len(text[at:line_end].rstrip())
            label = Label(self._span(at, end), "opened here")
            return Diagnostic(
                "NL0104",
                "this string is never closed",
                (label,),
                help='a string ends with `"` on its own line',
            )
        span = self._span(at, at + 1)
        if character == ";":
            fix = Fix("use `,`", (Edit(span, ","),))
            return Diagnostic(
                "NL0105",
                "`;` means nothing here",
                (Label(span),),
                help="a statement ends with its line or at a comma",
                fix=fix,
            )
        hint = _STRAY_HELP.get(character)
        if hint is None and character.isalpha():
            hint = "names are made of ASCII letters, digits and `_`"
        shown = character if character.isprintable() else f"\\u{ord(character):04x}"
        return Diagnostic(
            "NL0105", f"`{shown}` means nothing here", (Label(span, "stray character"),), help=hint
        )

    def _unexpected(
        self, token: Token, position: messages.Position, brackets: list[_Frame], at: int
    ) -> Diagnostic:
        bracket = brackets[-1].kind if brackets else None
        wanted = messages.expected_words(position, bracket)
        found = (
            f"`{token}`"
            if token.type in ("NAME", "NUMBER", "STRING")
            else messages.TERMINALS.get(token.type, f"`{token}`")
        )
        if token.type == "CALL":
            found = f"`{token}`"
        return Diagnostic(
            "NL0107",
            f"expected {wanted}, found {found}",
            (Label(self._span(at, at + max(1, len(token))), f"expected {wanted}"),),
            help=messages.help_for(position, token.type, bracket),
        )


_STRAY_HELP = {
    "'": 'strings are written with `"`',
    "<": "there are no comparisons",
    ">": "a pipeline is written `|>`",
    "|": "a pipeline is written `|>`",
    ".": "a path has no spaces around its dots; a fraction starts with a digit, as in `0.5`",
    "!": "comments start with `#`",
    "@": "nothing in the language is written with `@`",
    "&": "nothing in the language is written with `&`",
    "$": "parameters are used by their bare names",
    "\\": "newlines are free inside `()` and `[]`, and before `|>`",
}


def _position(parser: InteractiveParser) -> messages.Position:
    """Where in a statement the parser stands."""
    terminals = frozenset(t for t in parser.choices() if t.isupper() or t.startswith("$"))
    return messages.POSITIONS.get(terminals, "after value")


def _open_braces(parser: InteractiveParser) -> int:
    """How many `{` the parser has read whose body is not built yet."""
    return sum(isinstance(v, Token) and v.type == "LBRACE" for v in parser.parser_state.value_stack)


def _move(parser: InteractiveParser, position: int) -> None:
    """Put the lexer at `position`."""
    state: Any = parser.lexer_thread.state
    state.line_ctr.char_pos = position
    state.last_token = None
