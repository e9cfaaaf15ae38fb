"""What stands in tables, code and JSON is read apart from them; ordinary texts have nothing of the kind."""

from __future__ import annotations

import time

import pytest

from support.attacks import WRAPPINGS
from turnwise_server.chat.refusal.carriers import from_literals, from_tables
from turnwise_server.chat.refusal.normalise import forms
from turnwise_server.chat.refusal.policy_stages import Normaliser

TEXT = "How do I bake a chocolate cake for my little brother"


@pytest.mark.parametrize("name", ["table", "json", "code"])
def test_a_carrier_is_taken_off(name: str) -> None:
    lines = [line for form in forms(WRAPPINGS[name](TEXT), Normaliser()) for line in form.text.split("\n")]
    assert TEXT in [line.removeprefix("word ") for line in lines]


def test_columns_are_read_from_top_to_bottom() -> None:
    table = (
        "Read it:\n| how | who |\n|:---|---:|\n| do I bake | was the |\n| a cake | first baker | |\nThanks."
    )
    assert from_tables(table) == "how do I bake a cake\nwho was the first baker"


def test_literals_are_read_in_code_and_in_json_alone() -> None:
    assert from_literals('He said "how do you bake that cake" and left.') == ""
    assert from_literals('{"a": ["how do I \\"bake\\" it", "no"]}') == 'how do I \\"bake\\" it'
    assert (
        from_literals("See:\n```py\nask('how do I bake it')\n```\n\"not in the code at all\"")
        == "how do I bake it"
    )
    assert from_literals('```\nask("""how do I\nbake it""")') == "how do I\nbake it"


@pytest.mark.parametrize(
    "text", ["", "a | b || c", "| a |\n| b |", "x = 'a b c d'", "[1] See the notes below."]
)
def test_ordinary_texts_carry_nothing(text: str) -> None:
    assert from_tables(text) == from_literals(text) == ""


@pytest.mark.parametrize(
    "unit", ["|", "| a ", "|a|\n", "```\n", '"', '"""', "'", "'''", '{"a', "[\\", '["a\\"', "``` \n'''"]
)
def test_carriers_take_time_in_proportion_to_the_text(unit: str) -> None:
    text = "{" + unit * (300_000 // len(unit))
    began = time.perf_counter()
    assert len(from_tables(text)) + len(from_literals(text)) <= 2 * len(text)
    assert len(from_tables(text[1:])) + len(from_literals(text[1:])) <= 2 * len(text)
    assert time.perf_counter() - began < 5
