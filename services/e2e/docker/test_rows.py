"""Whether rows.md has every row, and names the tests of this folder that say they check it, and no others."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
E2E = HERE.parent


def table() -> dict[str, str]:
    """The check of each row."""
    text = (HERE / "rows.md").read_text()
    found = re.findall(r"^\| (S\d+) \| .* \| (.*) \|$", text, re.MULTILINE)
    assert len(found) == len(dict(found)) > 140, "no row is there twice"
    return dict(found)


def marked() -> dict[str, set[str]]:
    """The tests of this folder that say which rows they check, by row."""
    tests: dict[str, set[str]] = {}
    for file in HERE.glob("test_*.py"):
        for decorators, name in re.findall(r"^@(?:pytest\.mark\.)?rows\((.*?)^def (test_\w+)", file.read_text(), re.MULTILINE | re.DOTALL):
            for row in re.findall(r'"(S\d+)"', decorators):
                tests.setdefault(row, set()).add(f"{file.stem}::{name}")
    return tests


def test_every_row_has_a_check_that_exists() -> None:
    # As the two documents were numbered.
    blocks = ((1, 8), (10, 34), (40, 66), (70, 91), (100, 123), (130, 155), (160, 168))
    rows = table()
    assert set(rows) == {f"S{row:02}" for first, last in blocks for row in range(first, last + 1)}
    for row, check in rows.items():
        assert check.strip(), f"{row} has no check"
        for path in re.findall(r"(?<!\w)((?:python|cli)/[\w/]+\.\w+)", check):
            assert (E2E if path.startswith("python") else E2E.parent).joinpath(path).is_file(), f"{row}: {path}"


def test_rows_and_tests_say_the_same() -> None:
    tests = marked()
    for row, check in table().items():
        named = {f"{file}::{name}" for file, name in re.findall(r"(test_\w+)::(test_\w+)", check)}
        assert named == tests.pop(row, set()), row
    assert not tests
