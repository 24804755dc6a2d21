"""What counts as a change of a program, and what does not."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from tests.mutants.changes import Mutant, find_mutants


def changes(source: str) -> list[Mutant]:
    return find_mutants("m", ast.parse(dedent(source)))


def after(source: str) -> list[str]:
    return [mutant.after for mutant in changes(source)]


@pytest.mark.parametrize(
    ("expression", "others"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a is None", ["a is not None"]),
        ("a and b", ["a or b", "b", "a"]),
        ("a + b", ["a - b", "a", "b"]),
        ("not a", ["a"]),
        ("a if b else c", ["a", "c"]),
        ("a[1:]", ["a[:]", "2:", "0:"]),
        ("a.strip(' .')", ["a", "a.strip('.')", "a.strip(' ')", "a.strip('')"]),
        ("f(a, b=c)", [""]),
        ("{a: b}", ["{}"]),
        ("True", ["False"]),
        ("re.compile('a+|b{2}')", ["re.compile('b{2}')", "re.compile('a|b{2}')", "re.compile('a*|b{2}')"]),
    ],
)
def test_expressions_change_in_these_ways(expression: str, others: list[str]) -> None:
    found = after(f"x = {expression}")
    assert [other for other in others if other not in found] == []


@pytest.mark.parametrize(
    ("body", "others"),
    [
        ("return a", ["return None"]),
        ("raise KeyError(a)", ["pass", "raise ArithmeticError()"]),
        ("a()", ["pass"]),
        ("if a: b()", ["if True: ...", "if False: ..."]),
        ("for a in b: continue", ["break", "pass"]),
        ("x = a", ["x = None"]),
        ("x += a", ["pass", "x -= a"]),
    ],
)
def test_statements_change_in_these_ways(body: str, others: list[str]) -> None:
    found = after(f"def f():\n  {body}")
    assert [other for other in others if other not in found] == []


def test_a_function_that_tells_returns_true_and_false_instead() -> None:
    assert after("def f(a) -> bool:\n  return a") == ["return True", "return False"]


def test_annotations_docstrings_and_sentences_stay_and_the_codes_of_errors_do_not() -> None:
    source = '''
        """A docstring."""
        X: TypeAlias = int | str

        def f(a: int | None) -> int | None:
            """Another."""
            raise E("code", "A sentence.", f"One with {a + 1} in it.")
    '''
    assert sorted(after(source)) == [
        "E('', 'A sentence.', f'One with {a + 1} in it.')",
        "pass",
        "raise ArithmeticError()",
    ]


def test_a_change_is_made_alone_in_the_tree_that_it_was_found_in() -> None:
    source = "def f(a, b):\n    return a < b and a > 0"
    count = len(find_mutants("m", ast.parse(source)))
    texts = set()
    for index in range(count):
        tree = ast.parse(source)
        find_mutants("m", tree)[index].apply()
        texts.add(ast.unparse(tree))
    assert len(texts) == count
    assert ast.unparse(ast.parse(source)) not in texts


def test_a_change_keeps_its_key_when_another_function_is_written_anew() -> None:
    one, other = "def f(a):\n  return a < 1", "def g(a):\n  return a > 1"
    before = {mutant.key for mutant in changes(one)}
    assert before < {mutant.key for mutant in changes(f"{other}\n\n{one}")}
    assert before.isdisjoint(mutant.key for mutant in changes(one.replace("a", "b")))


def test_what_runs_with_the_import_is_told_from_what_a_function_does() -> None:
    source = "X = 1\nclass C:\n  Y = 2\n  def f(self, a=3):\n    return 4"
    assert {(mutant.where, mutant.function) for mutant in changes(source)} == {
        ("m", None),
        ("m.C", None),
        ("m.C.f", "C.f"),
    }
