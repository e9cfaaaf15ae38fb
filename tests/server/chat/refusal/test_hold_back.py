"""Where the checks of a reply lie and how much each of them releases."""

import time

import pytest

from turnwise_server.chat.refusal.hold_back import Check, HoldBack, HoldBackRule


def checks_of(text: str, rule: HoldBackRule, chunk: int = 7) -> list[Check]:
    """All checks of a text that passes, fed in chunks."""
    hold = HoldBack(rule)
    checks: list[Check] = []

    def make_due_checks() -> None:
        while check := hold.due:
            checks.append(check)
            hold.passed(check)

    for at in range(0, len(text), chunk):
        hold.feed(text[at : at + chunk])
        make_due_checks()
    hold.end()
    make_due_checks()
    assert hold.is_complete
    assert hold.released == len(text)
    return checks


def test_the_first_checks_come_sooner_and_the_last_is_at_the_end() -> None:
    offsets = [check.offset for check in checks_of("x" * 700, HoldBackRule())]
    assert offsets == [40, 120, 280, 440, 600, 700]


def test_a_check_sees_the_text_before_it_up_to_its_context() -> None:
    text = "".join(chr(0x4E00 + at) for at in range(1000))
    for check in checks_of(text, HoldBackRule(context_chars=300)):
        assert check.window == text[max(0, check.offset - 300) : check.offset]


@pytest.mark.parametrize("text", ["", "x"])
def test_the_shortest_replies_need_one_check_at_most(text: str) -> None:
    assert [check.window for check in checks_of(text, HoldBackRule())] == [text] * len(text)


def test_an_end_at_a_check_is_not_checked_twice() -> None:
    assert [check.offset for check in checks_of("x" * 120, HoldBackRule())] == [40, 120]


def test_a_pass_releases_all_but_the_last_characters() -> None:
    hold = HoldBack(HoldBackRule())
    hold.feed("x" * 130)
    for released in (0, 40):
        check = hold.due
        assert check is not None
        hold.passed(check)
        assert hold.released == released
    assert hold.due is None


def test_marks_without_end_are_held_to_the_end_in_linear_time() -> None:
    text = "e" + "\u0301" * 100_000
    started = time.process_time()
    checks_of(text, HoldBackRule(), chunk=1)
    assert time.process_time() - started < 5, "about 0.3 s; quadratic work would take minutes"


@pytest.mark.parametrize(
    ("stride", "hold", "context", "named"),
    [(0, 80, 600, "stride_chars"), (160, 39, 600, "hold_chars"), (160, 80, 239, "context_chars")],
)
def test_a_rule_that_leaves_a_gap_is_refused(stride: int, hold: int, context: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        HoldBackRule("hold_back", stride, hold, context)
