"""Small faults in Python source: every single change of a module that a good test should notice. Runs nothing.

Changed are comparisons, `and`/`or` and their operands, conditions (fixed), constants, operators, slices, the members
of tuples, lists, sets and dictionaries, and the patterns given to `re`; returns, raises, calls and assignments are
removed, exceptions change their type, keyword arguments and calls that normalise or copy a value are left out. Not
changed are annotations, docstrings and the sentences of messages (texts with a space in them, patterns aside).
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_JOINING = (ast.Add, ast.BitAnd, ast.BitOr)  # each side makes sense alone
_NORMALISING = frozenset(
    ("lower", "upper", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "replace", "translate")
)
_STRIPPING = frozenset(("strip", "lstrip", "rstrip"))
_COPYING = frozenset(("tuple", "list", "dict", "set", "frozenset", "sorted", "reversed"))
_OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LONGEST_SHOWN = 160


@dataclass(frozen=True)
class Mutant:
    """One change. `apply` makes it in the tree that it was found in."""

    where: str
    """Module and qualified name, as in `jwk.Key.from_pem`; the module alone for what runs when it is imported."""
    function: str | None
    """The qualified name of the outermost function that the change lies in; None where it runs with the import."""
    lines: range
    """Those of the statement, or of a compound statement's head."""
    body: range
    """Those of the outermost function's body; empty outside of functions."""
    nested: bool
    """Whether the change lies in a function within that function."""
    before: str
    after: str
    nth: int
    """Which of the changes that look alike in the same place, from 1."""
    key: str
    """Stays the same as long as the function (or the statement outside of functions) around it does."""
    apply: Callable[[], object] = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        """How lists name it; unique within a version of the source."""
        place = self.where if self.nth == 1 else f"{self.where}#{self.nth}"
        return f"`{place}`: `{self.before}` → `{self.after}`"


def find_mutants(module: str, tree: ast.Module) -> list[Mutant]:
    """Give every change of a module, in the order of its text. `module` is the name to show."""
    finder = _Finder(module)
    finder.statements(tree.body, _Scope())
    return finder.found


@dataclass(frozen=True)
class _Scope:
    """Where the walk is."""

    names: tuple[str, ...] = ()
    function: str | None = None
    body: range = range(0)
    digest: str = ""
    returns_bool: bool = False
    raising: bool = False
    in_pattern: bool = False


_Put = Callable[[ast.AST], object]
"""Puts a node in the place of the one that was found there."""


class _Finder:
    def __init__(self, module: str) -> None:
        self.found: list[Mutant] = []
        self._module = module
        self._alike: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._lines = range(0)
        self._parents: list[ast.AST] = []

    def statements(self, body: list[ast.stmt], scope: _Scope) -> None:
        for index, node in enumerate(body):
            if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                continue
            within = scope if scope.function else replace(scope, digest=_digest(node))
            outer, self._lines = self._lines, _head_lines(node)
            for new in _other_statements(node, within):
                self._note(partial(body.__setitem__, index, new), within, node, new)
            self._inside_statement(node, within)
            self._lines = outer

    def _inside_statement(self, node: ast.AST, scope: _Scope) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._expressions(node, ("decorator_list",), scope)
            self._expressions(node.args, ("defaults", "kw_defaults"), scope)
            names = (*scope.names, node.name)
            self.statements(
                node.body,
                _Scope(
                    names,
                    scope.function or ".".join(names),
                    scope.body or range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1),
                    scope.digest if scope.function else _digest(node),
                    returns_bool=node.returns is not None and ast.unparse(node.returns) == "bool",
                ),
            )
            return
        if isinstance(node, ast.ClassDef):
            self._expressions(node, ("decorator_list",), scope)
            self._keywords(node, scope)
            self.statements(node.body, _Scope((*scope.names, node.name)))
            return
        if isinstance(node, ast.ExceptHandler):
            outer, self._lines = self._lines, _head_lines(node)
            self._exceptions(node, scope)
            self._lines = outer
        scope = replace(scope, raising=isinstance(node, ast.Raise))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "target", "targets", "type", "cause"):
                continue
            if not isinstance(value, list):
                self._expressions(node, (name,), scope)
            elif value and isinstance(value[0], ast.stmt):
                self.statements(value, scope)
            elif value and isinstance(value[0], (ast.ExceptHandler, ast.withitem, ast.match_case)):
                for item in value:
                    self._inside_statement(item, scope)
            else:
                self._expressions(node, (name,), scope)

    def _exceptions(self, node: ast.ExceptHandler, scope: _Scope) -> None:
        if isinstance(node.type, ast.Tuple):
            self._elements(node.type, scope)
        elif node.type is not None:
            nothing = ast.Tuple([], ast.Load())
            self._note(partial(setattr, node, "type", nothing), scope, node.type, nothing)

    def _expressions(self, owner: ast.AST, names: tuple[str, ...], scope: _Scope) -> None:
        """Change the expressions in these fields of `owner`, and those within them."""
        self._parents.append(owner)
        for name in names:
            value = getattr(owner, name)
            if isinstance(value, list):
                for index, item in enumerate(value):
                    self._expression(item, partial(value.__setitem__, index), scope)
            else:
                self._expression(value, partial(setattr, owner, name), scope)
        self._parents.pop()

    def _expression(self, node: object, put: _Put, scope: _Scope) -> None:
        if not isinstance(node, ast.AST) or (isinstance(node, ast.JoinedStr) and _is_message(node)):
            return
        if scope.raising and isinstance(node, ast.BinOp):
            return  # a message put together
        if not (isinstance(node, ast.Constant) and self._is_left_out_anyway(node)):
            for new in _other_expressions(node, scope):
                self._note(partial(put, new), scope, node, new)
        if isinstance(node, ast.Call):
            self._call(node, scope)
            return
        if isinstance(node, ast.Lambda):
            self._expressions(node.args, ("defaults", "kw_defaults"), scope)
            self._expressions(node, ("body",), scope)
            return
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)) and not self._is_taken_apart(node):
            self._elements(node, scope)
        if isinstance(node, ast.Dict):
            for index, key in enumerate(node.keys):
                shown = ast.Dict([key], [node.values[index]])
                self._note(partial(_pop, index, node.keys, node.values), scope, shown, ast.Dict([], []))
        if isinstance(node, ast.comprehension):
            for index, condition in enumerate(node.ifs):
                self._note(partial(_pop, index, node.ifs), scope, condition, ast.Constant(value=True))
        skipped = ("ctx", "target", "op", "ops", "format_spec")
        self._expressions(node, tuple(name for name in node._fields if name not in skipped), scope)

    def _call(self, node: ast.Call, scope: _Scope) -> None:
        called = ast.unparse(node.func)
        if called in ("cast", "TypeVar"):
            return  # for the type checker
        self._keywords(node, scope)
        if called == "suppress":
            for index, argument in enumerate(node.args):
                self._note(partial(_pop, index, node.args), scope, argument, None)
        self._expressions(node, ("func",), scope)
        self._expressions(node, ("args",), replace(scope, in_pattern=called.startswith("re.")))

    def _keywords(self, node: ast.Call | ast.ClassDef, scope: _Scope) -> None:
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None:
                self._note(partial(_pop, index, node.keywords), scope, keyword, None)
            self._parents.append(keyword)
            self._expression(keyword.value, partial(setattr, keyword, "value"), scope)
            self._parents.pop()

    def _elements(self, node: ast.Tuple | ast.List | ast.Set, scope: _Scope) -> None:
        for index, element in enumerate(node.elts):
            if len(node.elts) == 1 and isinstance(node, ast.Set):
                continue  # would read as a dictionary
            self._note(partial(_pop, index, node.elts), scope, element, None, within=node)

    def _is_left_out_anyway(self, node: ast.Constant) -> bool:
        """Say whether another change says the same: a text gone from a collection, True returned for False."""
        parent = self._parents[-1]
        if isinstance(parent, ast.Return):
            return isinstance(node.value, bool)
        return isinstance(parent, (ast.Tuple, ast.List, ast.Set)) and isinstance(node.value, (str, bytes))

    def _is_taken_apart(self, node: ast.expr) -> bool:
        """Say whether the expression is no collection but some values for as many names."""
        parent = self._parents[-1]
        if isinstance(parent, ast.Assign):
            return isinstance(parent.targets[0], ast.Tuple)
        return isinstance(node, ast.Tuple) and isinstance(parent, (ast.Return, ast.Yield, ast.Subscript))

    def _note(
        self,
        apply: Callable[[], object],
        scope: _Scope,
        old: ast.AST,
        new: ast.AST | None,
        within: ast.AST | None = None,
    ) -> None:
        before, after = _shown(old), "" if new is None else _shown(new)
        parent = within or (self._parents[-1] if self._parents else None)
        small = isinstance(old, (ast.Constant, ast.Slice, ast.Name, ast.Attribute))
        if small and isinstance(parent, (ast.expr, ast.keyword)):
            text = _one_line(ast.unparse(parent))
            if len(text) <= _LONGEST_SHOWN and text.count(before) == 1:
                before, after = text, text.replace(before, after)
        where = ".".join((self._module, *scope.names))
        looks = f"{where}\0{before}\0{after}"
        self._alike[looks] += 1
        identity = f"{looks}\0{scope.digest}\0{self._alike[looks]}"
        self.found.append(
            Mutant(
                where,
                scope.function,
                self._lines,
                scope.body,
                scope.function not in (None, ".".join(scope.names)),
                before,
                after,
                self._alike[looks],
                hashlib.sha256(identity.encode()).hexdigest()[:16],
                apply,
            )
        )


def _pop(index: int, *lists: list[Any]) -> None:
    for items in lists:
        del items[index]


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.dump(node).encode()).hexdigest()


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")


def _shown(node: ast.AST) -> str:
    if isinstance(node, (ast.If, ast.While)):
        node = type(node)(node.test, [ast.Expr(ast.Constant(...))], [])
    line = _one_line(ast.unparse(ast.fix_missing_locations(node)))
    return line if len(line) <= _LONGEST_SHOWN else f"{line[: _LONGEST_SHOWN - 1]}…"


def _is_message(node: ast.JoinedStr) -> bool:
    return any(isinstance(part, ast.Constant) and " " in str(part.value) for part in node.values)


def _head_lines(node: ast.AST) -> range:
    """Give the lines of a statement, without those of the statements inside."""
    first: int = getattr(node, "lineno")  # noqa: B009 # of a statement or handler, which ast.AST does not say
    last: int = getattr(node, "end_lineno")  # noqa: B009
    inner = [line for child in ast.walk(node) if isinstance(child, ast.stmt) and (line := child.lineno) > first]
    return range(first, min([last + 1, *inner]))


# What can stand instead


def _other_statements(node: ast.stmt, scope: _Scope) -> Iterator[ast.stmt]:
    match node:
        case ast.Return(value=value) if value is not None:
            plain = value.value if isinstance(value, ast.Constant) else ...
            others = (True, False) if scope.returns_bool else (None,)
            yield from (ast.Return(ast.Constant(other)) for other in others if other is not plain)
        case ast.Raise(exc=exc):
            yield ast.Pass()
            if isinstance(exc, ast.Call) and isinstance(exc.func, ast.Name):
                yield ast.Raise(ast.Call(ast.Name("ArithmeticError", ast.Load()), [], []))
        case ast.Expr():
            yield ast.Pass()
        case ast.Assign(targets=targets, value=value) if scope.function:
            if not isinstance(value, ast.Constant):
                yield ast.Assign(targets, ast.Constant(None))
        case ast.AugAssign(target=target, op=operator, value=value):
            yield ast.Pass()
            yield ast.AugAssign(target, _OPERATORS[type(operator)](), value)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
            yield ast.Pass()
        case ast.Delete():
            yield ast.Pass()
        case ast.If(body=body, orelse=orelse):
            yield ast.If(ast.Constant(value=True), body, orelse)
            yield ast.If(ast.Constant(value=False), body, orelse)
        case ast.While(body=body, orelse=orelse):
            yield ast.While(ast.Constant(value=False), body, orelse)


def _other_expressions(node: ast.AST, scope: _Scope) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, operator in enumerate(ops):
                for other in _COMPARISONS[type(operator)]:
                    yield ast.Compare(left, [*ops[:index], other(), *ops[index + 1 :]], comparators)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right):
            yield ast.BinOp(left, _OPERATORS[type(operator)](), right)
            if isinstance(operator, _JOINING):
                yield left
                yield right
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Slice(lower=lower, upper=upper, step=step):
            if lower is not None:
                yield ast.Slice(None, upper, step)
            if upper is not None:
                yield ast.Slice(lower, None, step)
            if step is not None:
                yield ast.Slice(lower, upper, None)
        case ast.Constant(value=value):
            yield from (ast.Constant(other) for other in _other_constants(value, scope))
        case ast.Call(func=ast.Attribute(value=receiver, attr=name), args=args) if name in _NORMALISING:
            yield receiver
            match args:
                case [ast.Constant(value=str() as characters)] if name in _STRIPPING and len(characters) > 1:
                    for index in range(len(characters)):
                        fewer = characters[:index] + characters[index + 1 :]
                        yield ast.Call(node.func, [ast.Constant(fewer)], [])
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _COPYING:
            yield argument
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in _OPPOSITES:
            yield ast.Call(ast.Name(_OPPOSITES[name], ast.Load()), args, keywords)
        case ast.Lambda(args=arguments):
            yield ast.Lambda(arguments, ast.Constant(None))


def _other_constants(value: object, scope: _Scope) -> Iterator[bool | float | str | bytes]:
    match value:
        case bool():
            yield not value
        case int() | float():
            yield value + 1
            yield value - 1
        case str() if scope.in_pattern:
            yield from _other_patterns(value)
        case bytes() if scope.in_pattern:
            yield from (pattern.encode("latin-1") for pattern in _other_patterns(value.decode("latin-1")))
        case str() if " " not in value.strip():  # else the sentence of a message
            yield "~" if value == "" else ""
        case bytes():
            yield b"~" if value == b"" else b""


_PATTERN_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:<?[=!]|:|>)|\{[0-9,]+\}|[*+?]\+?\??|.", re.DOTALL)


def _other_patterns(pattern: str) -> Iterator[str]:
    """Leave out an alternative, an anchor or a look around, repeat once less or more, or not at all."""
    tokens = _PATTERN_TOKEN.findall(pattern)
    seen = {pattern}
    for start, token in enumerate(tokens):
        spans: list[tuple[int, int, str]] = []
        if token in ("^", "$", r"\b", r"\A", r"\Z", "*", "+", "?", "*+", "++", "?+", "*?", "+?"):
            spans.append((start, start + 1, ""))
        if token == "+":
            spans.append((start, start + 1, "*"))
        if counts := re.fullmatch(r"\{([0-9]*)(,?)([0-9]*)\}", token):
            least, comma, most = counts.groups()
            spans.extend((start, start + 1, f"{{{other}{comma}{most}}}") for other in _near(least))
            spans.extend((start, start + 1, f"{{{least},{other}}}") for other in _near(most))
        if token in ("|", "(", "(?:", "(?>") or start == 0:
            first = start if start == 0 and token not in ("(", "(?:", "(?>") else start + 1
            end, closed = _alternative_end(tokens, first)
            if token == "|":
                spans.append((start, end, ""))
            elif not closed:
                spans.append((first, end + 1, ""))
        if token.startswith(("(?=", "(?!", "(?<")):
            end = start + 1
            while not (stop := _alternative_end(tokens, end))[1]:
                end = stop[0] + 1
            spans.append((start, stop[0] + 1, ""))
        for first, end, new in spans:
            changed = "".join((*tokens[:first], new, *tokens[end:]))
            if changed not in seen and _compiles(changed):
                seen.add(changed)
                yield changed


def _alternative_end(tokens: list[str], start: int) -> tuple[int, bool]:
    """Give where the alternative that begins at `start` ends, and whether its group (or the pattern) ends there."""
    depth = 0
    for index in range(start, len(tokens)):
        if tokens[index].startswith("("):
            depth += 1
        elif tokens[index] == ")":
            if depth == 0:
                return index, True
            depth -= 1
        elif tokens[index] == "|" and depth == 0:
            return index, False
    return len(tokens), True


def _near(number: str) -> list[int]:
    return [other for other in (int(number) - 1, int(number) + 1) if other >= 0] if number else []


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True
