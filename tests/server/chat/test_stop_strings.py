"""Stop strings never leak, and never swallow what is not theirs."""

from hypothesis import given
from hypothesis import strategies as st

from turnwise_server.chat.stop_strings import StopStringMatcher

words = st.text(alphabet="abc\n", max_size=30)
stops = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=4)


def reference(text: str, stop_strings: list[str]) -> str:
    """Read character by character; cut when any stop string is complete."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


def run(pieces: list[str], stop_strings: list[str]) -> str:
    matcher = StopStringMatcher(stop_strings)
    return "".join(matcher.feed(piece) for piece in pieces) + matcher.flush()


@given(st.lists(words, max_size=8), stops)
def test_released_text_is_the_reference_for_every_chunking(
    pieces: list[str], stop_strings: list[str]
) -> None:
    assert run(pieces, stop_strings) == reference("".join(pieces), stop_strings)


@given(words, stops)
def test_nothing_released_early_is_ever_part_of_a_stop_string(text: str, stop_strings: list[str]) -> None:
    matcher, shown = StopStringMatcher(stop_strings), ""
    whole = reference(text, stop_strings)
    for char in text:
        shown += matcher.feed(char)
        assert whole.startswith(shown)


def test_held_prefix_is_given_back_when_it_comes_to_nothing() -> None:
    matcher = StopStringMatcher(["STOP"])
    assert matcher.feed("go STO") == "go "
    assert matcher.feed("RE") == "STORE"


def test_stop_string_over_several_pieces_is_cut_whole() -> None:
    matcher = StopStringMatcher(["\n\nUser:"])
    assert "".join(matcher.feed(piece) for piece in ["Hi.\n", "\nUs", "er: more"]) == "Hi."
    assert matcher.matched == "\n\nUser:"
    assert matcher.flush() == ""
