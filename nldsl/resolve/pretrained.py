"""`pretrained(file, path)`: weights that begin as those of a file."""

from __future__ import annotations

from nldsl.diagnostics.suggest import nearest
from nldsl.document import expr as e
from nldsl.document.printer import print_expr
from nldsl.resolve.expanded import Pretrained
from nldsl.resolve.scope import Scope, Word

ARGUMENTS = ("file", "path", "rename", "partial")
LAYER = "model.layers.*"
"""What files of the Llama family call one block; `*` is its number, counted in depth from 0."""
EMBEDDING, NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
ATTENTION = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
}
"""What they call the linear maps of softmax attention, by the field that these stand in."""
FEED_FORWARD = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
"""What they call the matrices of a `swiglu`."""
NORMS = {"attention": "input_layernorm", "feed forward": "post_attention_layernorm"}
"""What they call the norm in front of either."""


def customary(name: str, rename: tuple[tuple[str, str], ...]) -> str:
    """A customary name as this file spells it: each pair replaces parts that stand side by side.

    >>> customary("model.layers.*.mlp.gate_proj", (("mlp.gate_proj", "ffn.w1"), ("model.layers", "blocks")))
    'blocks.*.ffn.w1'
    """
    for old, new in rename:
        parts, wanted = name.split("."), old.split(".")
        for at in range(len(parts) - len(wanted) + 1):
            if parts[at : at + len(wanted)] == wanted:
                name = ".".join([*parts[:at], *new.split("."), *parts[at + len(wanted) :]])
                break
    return name


def is_customary(name: str) -> bool:
    """Whether `name` is a customary name, or parts of one that stand side by side."""
    known = [EMBEDDING, NORM, HEAD]
    known += [f"{LAYER}.{one}" for one in (*ATTENTION.values(), *FEED_FORWARD.values(), *NORMS.values())]
    return any(f".{name}." in f".{one}." for one in known)


def pretrained(node: e.Expr, scope: Scope, *, of_level: bool) -> Pretrained:
    """The start of a level (`of_level`), which names a part of the file, or of a whole model."""
    given = _given(node, scope)
    if "file" not in given:
        raise scope.findings.stop(
            "NL0201",
            "`pretrained` needs a file",
            node.span,
            "not given here",
            help='write `pretrained("model.safetensors"' + (', "model.layers.*.mlp")`' if of_level else ")`"),
        )
    file = _text(given["file"], "the file", scope)
    if not file.endswith(".safetensors"):
        raise scope.findings.stop(
            "NL0570",
            f"weights cannot be read from `{file}`",
            given["file"].span,
            "not called `.safetensors`",
            help="give a file in the safetensors format; torch's own `.pt` and `.bin` can run code when read",
        )
    path = _path(node, given, scope, of_level=of_level)
    partial = "partial" in given and scope.word(given["partial"], "`partial`", ("true", "false")) == "true"
    if partial and of_level:
        raise scope.findings.stop(
            "NL0571",
            "`partial` means nothing to a level",
            given["partial"].span,
            "not used",
            help="leave it out: a level takes all its weights from the file",
        )
    return Pretrained(file, path, _rename(given.get("rename"), scope), partial, node.span)


def _given(node: e.Expr, scope: Scope) -> dict[str, e.Expr]:
    """The arguments by name; `partial` alone is a switch."""
    given: dict[str, e.Expr] = {}
    places = list(ARGUMENTS[:2])
    for argument in node.arguments if isinstance(node, e.Call) else ():
        bare = isinstance(argument.value, e.Name) and argument.value.text == "partial"
        name = argument.name or ("partial" if bare else places.pop(0) if places else "")
        if name not in ARGUMENTS or name in given:
            near = nearest(name, list(ARGUMENTS)) if name else []
            raise scope.findings.stop(
                "NL0202",
                f"`{name}` is given twice" if name in given else "`pretrained` does not take this argument",
                argument.span,
                "again here" if name in given else "unknown argument",
                help=f"maybe `{near[0]}`" if near else f"it takes {', '.join(f'`{a}`' for a in ARGUMENTS)}",
            )
        given[name] = e.Name(("true",), span=argument.span) if bare and not argument.name else argument.value
        if name in places:
            places.remove(name)
    return given


def _text(node: e.Expr, what: str, scope: Scope) -> str:
    value = scope.value(node)
    if isinstance(value, Word) and value.text:
        return value.text
    raise scope.findings.stop(
        "NL0203", f"{what} cannot be `{print_expr(node)}`", node.span, "a text in quotes is wanted here"
    )


def _path(node: e.Expr, given: dict[str, e.Expr], scope: Scope, *, of_level: bool) -> str | None:
    """Which part of the file a level takes."""
    if of_level and "path" not in given:
        raise scope.findings.stop(
            "NL0201",
            "`pretrained` needs a path for a level",
            node.span,
            "which weights of the file?",
            help='write `pretrained("model.safetensors", "model.layers.*.mlp")`: the star is the number of '
            "the block",
        )
    if not of_level and "path" in given:
        raise scope.findings.stop(
            "NL0571",
            "a whole model starts from a whole file",
            given["path"].span,
            "names a part of the file",
            help="leave the path out, or put the start on a level of a chain",
        )
    if "path" not in given:
        return None
    path = _text(given["path"], "the path", scope).strip(".")
    if path.split(".").count("*") > 1 or any("*" in part and part != "*" for part in path.split(".")):
        raise scope.findings.stop(
            "NL0570",
            f"`{path}` does not name one part for each block",
            given["path"].span,
            "one `*` at most, as a whole part",
            help="write `model.layers.*.mlp`: the star is the number of the block",
        )
    return path


def _rename(node: e.Expr | None, scope: Scope) -> tuple[tuple[str, str], ...]:
    """`[["mlp.gate_proj", "ffn.w1"], ...]`."""
    if node is None:
        return ()
    pairs = node.items if isinstance(node, e.ListOf) else (node,)
    return tuple(_pair(pair, scope) for pair in pairs)


def _pair(node: e.Expr, scope: Scope) -> tuple[str, str]:
    items = node.items if isinstance(node, e.ListOf | e.TupleOf) else ()
    if len(items) != 2:
        raise scope.findings.stop(
            "NL0571",
            f"`{print_expr(node)}` renames nothing",
            node.span,
            "not a pair",
            help='write `rename = [["mlp.gate_proj", "feed_forward.w1"]]`: the customary name, then the one '
            "in the file",
        )
    return _text(items[0], "a name", scope), _text(items[1], "a name", scope)
