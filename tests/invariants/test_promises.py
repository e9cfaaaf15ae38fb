"""Every promise of the server to its users has one test, named after its number."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1] / "promises"
PROMISES = range(1, 25)


def test_every_promise_has_one_test_with_its_number() -> None:
    files = (file.read_text(encoding="utf-8") for file in TESTS.rglob("test_*.py"))
    numbers = [
        int(number)
        for text in files
        for number in re.findall(r"^(?:async )?def test_promise_(\d\d)_", text, re.MULTILINE)
    ]
    assert sorted(numbers) == list(PROMISES)
