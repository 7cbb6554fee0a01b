"""Whether rows.md names a check for every row, and the checks that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = HERE.parent / "python"


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
        for decorators, name in re.findall(r"^@rows\((.*?)^def (test_\w+)", file.read_text(), re.MULTILINE | re.DOTALL):
            for row in re.findall(r'"(S\d+)"', decorators):
                tests.setdefault(row, set()).add(f"{file.stem}::{name}")
    return tests


def test_every_row_has_a_check_that_exists() -> None:
    for row, check in table().items():
        assert check.strip(), f"{row} has no check"
        for file, name in re.findall(r"(test_\w+)::(test_\w+)", check):
            assert f"def {name}(" in (HERE / f"{file}.py").read_text(), f"{row}: {file}::{name}"
        for path in re.findall(r"python/([\w/]+\.py)", check):
            assert (PYTHON / path).is_file(), f"{row}: {path}"


def test_the_table_has_all_that_the_tests_say() -> None:
    rows = table()
    for row, tests in marked().items():
        assert row in rows, row
        for test in tests:
            assert test in rows[row], f"{row} lacks {test}"
