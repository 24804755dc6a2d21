"""SECURITY.md is a map, not a promise: every test that it names is there."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SECTIONS = re.split(r"^## ", (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
NAMED = [
    (section.splitlines()[0], name)
    for section in SECTIONS
    for name in re.findall(r"`((?:[\w/]+/)?test_\w+\.py(?:::\w+)?)`", section)
]


def test_there_is_something_to_check() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("section", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_test_named_in_security_md_exists(section: str, name: str) -> None:
    file, _, function = name.partition("::")
    found = re.search(r"tests/([\w/]+)/", section)
    folder = found[1] if found else "server"
    candidates = [REPOSITORY / file, REPOSITORY / "tests" / folder / file, REPOSITORY / "tests" / "server" / file]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    assert path is not None, f"{file} is not there"
    if function:
        assert re.search(rf"^(?:async )?def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE)
