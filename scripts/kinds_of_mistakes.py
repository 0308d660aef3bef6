"""The kinds of mistakes that can be planted in a piece of Python, each as a change of its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Mistake:
    """A change of one span of a source text.

    Attributes
    ----------
    kind
        One of `KINDS`.
    line
        Where the span begins, from 1.
    start, stop
        The span, in bytes of UTF-8.
    text
        What is to stand there.
    """

    kind: str
    line: int
    start: int
    stop: int
    text: str

    def planted_in(self, source: str) -> str:
        """The source with this mistake."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.stop :]).decode()


_COMPARED = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "==",
             "is not": "is", "is": "is not", "not in": "in", "in": "not in"}  # fmt: skip
_BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*"}
_LOGIC = {"and": "or", "or": "and"}
_EXTREMES = {"min": "max", "amin": "amax", "argmin": "argmax", "minimum": "maximum", "any": "all",
             "floor": "ceil", "clamp_min": "clamp_max", "clamp_min_": "clamp_max_"}  # fmt: skip
_EXTREMES |= {new: old for old, new in _EXTREMES.items()}
_SIDES = {"write": "read", "left": "right", "rows": "columns", "row": "column", "first": "last",
          "low": "high", "lower": "upper", "smallest": "largest", "before": "after",
          "writer": "reader"}  # fmt: skip
_SIDES |= {new: old for old, new in _SIDES.items()}
_AXES = {0: "1", 1: "0", -1: "-2", -2: "-1"}


class _Text:
    """A source and the spans of its nodes."""

    def __init__(self, source: str) -> None:
        self.data = source.encode()
        self.tree = ast.parse(source)
        starts = [0]
        for line in self.data.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self.names = set(re.findall(r"\w+", source))

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        stop = self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return start, stop

    def of(self, node: ast.AST) -> str:
        start, stop = self.span(node)
        return self.data[start:stop].decode()

    def change(self, kind: str, start: int, stop: int, text: str) -> Mistake:
        line = self.data.count(b"\n", 0, start) + 1
        return Mistake(kind, line, start, stop, text)

    def replaced(self, kind: str, node: ast.AST, text: str) -> Mistake:
        return self.change(kind, *self.span(node), text)

    def between(
        self, kind: str, left: ast.AST, right: ast.AST, swaps: dict[str, str]
    ) -> Iterator[Mistake]:
        """The operator between two nodes, swapped for another."""
        start, stop = self.span(left)[1], self.span(right)[0]
        gap = self.data[start:stop].decode()
        words = "|".join(re.escape(word) for word in sorted(swaps, key=len, reverse=True))
        operator = re.search(rf"(?<![\w<>=!*/])({words})(?![\w<>=*/])", gap)
        if operator:
            begin = start + len(gap[: operator.start()].encode())
            old = operator.group()
            yield self.change(kind, begin, begin + len(old.encode()), swaps[old])

    def swapped(self, kind: str, left: ast.AST, right: ast.AST) -> Mistake:
        (start, end), (begin, stop) = self.span(left), self.span(right)
        gap = self.data[end:begin].decode()
        return self.change(kind, start, stop, self.of(right) + gap + self.of(left))


def _texts(node: ast.BinOp) -> bool:
    """Whether one side is a piece of text: a sum of texts is no arithmetic."""
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in sides
    )


def _of_compare(text: _Text, node: ast.Compare) -> Iterator[Mistake]:
    if len(node.ops) == 1:
        between = partial(text.between, left=node.left, right=node.comparators[0])
        yield from between("comparison", swaps=_COMPARED)
        yield from between("boundary", swaps=_BOUNDARY)


def _of_operation(text: _Text, node: ast.BinOp) -> Iterator[Mistake]:
    if _texts(node):
        return
    yield from text.between("arithmetic", node.left, node.right, _ARITHMETIC)
    ordered = isinstance(node.op, ast.Sub | ast.Div | ast.MatMult)
    if ordered and not any(isinstance(side, ast.BinOp) for side in (node.left, node.right)):
        yield text.swapped("swapped operands", node.left, node.right)


def _of_logic(text: _Text, node: ast.BoolOp) -> Iterator[Mistake]:
    for left, right in zip(node.values, node.values[1:], strict=False):
        yield from text.between("logic", left, right, _LOGIC)


def _of_not(text: _Text, node: ast.UnaryOp) -> Iterator[Mistake]:
    if isinstance(node.op, ast.Not):
        yield text.replaced("dropped not", node, f"({text.of(node.operand)})")


def _of_constant(text: _Text, node: ast.Constant) -> Iterator[Mistake]:
    if type(node.value) is int:
        yield text.replaced("constant", node, str(node.value + 1))
    elif type(node.value) is float:
        yield text.replaced("constant", node, repr(node.value * 2 if node.value else 1.0))


def _of_name(text: _Text, node: ast.Name | ast.Attribute) -> Iterator[Mistake]:
    name = node.id if isinstance(node, ast.Name) else node.attr
    stop = text.span(node)[1]
    start = stop - len(name.encode())
    if name in _EXTREMES:
        yield text.change("extreme", start, stop, _EXTREMES[name])
    other = "_".join(_SIDES.get(word, word) for word in name.split("_"))
    if other != name and other in text.names and isinstance(node.ctx, ast.Load):
        yield text.change("wrong side", start, stop, other)


def _of_call(text: _Text, node: ast.Call) -> Iterator[Mistake]:
    commutes = text.of(node.func).split(".")[-1] in ("min", "max", "minimum", "maximum")
    for left, right in zip(node.args, node.args[1:], strict=False):
        plain = all(isinstance(side, ast.Name | ast.Attribute) for side in (left, right))
        if plain and text.of(left) != text.of(right) and not commutes:
            yield text.swapped("swapped arguments", left, right)
    axes = [word.value for word in node.keywords if word.arg in ("dim", "axis")]
    for axis in (*axes, *(node.args if isinstance(node.func, ast.Attribute) else ())):
        if re.fullmatch(r"-[12]|[01]" if axis in axes else "-[12]", text.of(axis)):
            yield text.replaced("axis", axis, _AXES[int(text.of(axis))])
    given = [*node.args, *node.keywords]
    for word in node.keywords:
        if word.arg is not None:
            yield _without(text, word, given)


def _without(text: _Text, word: ast.keyword, given: list[ast.AST]) -> Mistake:
    """The call without one keyword, and the comma that parts it from the next or the last."""
    ends = sorted(text.span(argument) for argument in given)
    place = ends.index(text.span(word))
    start, stop = ends[place]
    if place + 1 < len(ends):
        stop = ends[place + 1][0]
    elif place:
        start = ends[place - 1][1]
    return text.change("dropped keyword", start, stop, "")


def _of_branch(text: _Text, node: ast.If) -> Iterator[Mistake]:
    leaves = isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue | ast.Break)
    if leaves and not node.orelse:
        yield text.replaced("dropped branch", node.test, "False")


def _of_choice(text: _Text, node: ast.IfExp) -> Iterator[Mistake]:
    swapped = f"{text.of(node.orelse)} if {text.of(node.test)} else {text.of(node.body)}"
    yield text.replaced("swapped branches", node, swapped)


def _of_statement(text: _Text, node: ast.Expr) -> Iterator[Mistake]:
    if isinstance(node.value, ast.Call):
        yield text.replaced("dropped statement", node, "pass")


_BY_NODE = {
    ast.Compare: _of_compare, ast.BinOp: _of_operation, ast.BoolOp: _of_logic,
    ast.UnaryOp: _of_not, ast.Constant: _of_constant, ast.Name: _of_name,
    ast.Attribute: _of_name, ast.Call: _of_call, ast.If: _of_branch, ast.IfExp: _of_choice,
    ast.Expr: _of_statement,
}  # fmt: skip

KINDS = (
    "comparison", "boundary", "arithmetic", "swapped operands", "logic", "dropped not", "constant",
    "extreme", "wrong side", "swapped arguments", "axis", "dropped keyword", "dropped branch",
    "swapped branches", "dropped statement",
)  # fmt: skip


def _behaviour(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that say what is done: no annotations, decorators, messages or f-strings."""
    yield node
    left_out = {"annotation", "returns", "decorator_list", "type_params"}
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if field in left_out or typing or not isinstance(child, ast.AST):
                continue
            if not isinstance(child, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
                yield from _behaviour(child)


def mistakes_in(source: str) -> list[Mistake]:
    """All mistakes that can be planted in a source, by kind and place."""
    text = _Text(source)
    every = {
        mistake
        for node in _behaviour(text.tree)
        if type(node) in _BY_NODE
        for mistake in _BY_NODE[type(node)](text, node)
    }
    return sorted(every, key=lambda mistake: (mistake.kind, mistake.start, mistake.text))
