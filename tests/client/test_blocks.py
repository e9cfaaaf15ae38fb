"""The block committer: what is finished stays finished, and nothing depends on how the text was cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from turnwise_client.blocks import Block, BlockCommitter, markdown_parser

_LINES = st.sampled_from(
    [
        "",
        "word",
        "two words  ",
        "# Head",
        "===",
        "---",
        "- item",
        "  - nested",
        "    deep",
        "* star",
        "1. one",
        "2) two",
        "10. ten",
        "> quote",
        "```",
        "```python",
        "````",
        "~~~",
        "   ```",
        "    code",
        "\tcode",
        "| a | b |",
        "|---|---|",
        "[x]: http://example.org",
        "<div>",
        "**bold",
        "漢字 😀",
        "- ```",
    ]
)
_MARKDOWN = st.lists(_LINES, max_size=14).map("\n".join) | st.text(max_size=60)


def _commit_in_pieces(text: str, cuts: list[int]) -> list[Block]:
    committer = BlockCommitter()
    blocks: list[Block] = []
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        before = list(blocks)
        blocks += committer.feed(text[start:end])
        assert blocks[: len(before)] == before
        assert "".join(block.text for block in blocks) + committer.live.text == text[:end]
    return blocks + committer.finish()


@given(_MARKDOWN, st.lists(st.integers(0, 200), max_size=12))
def test_committed_and_live_text_are_always_the_whole_text(text: str, cuts: list[int]) -> None:
    blocks = _commit_in_pieces(text, cuts)

    assert "".join(block.text for block in blocks) == text


@given(_MARKDOWN, st.lists(st.integers(0, 200), max_size=12))
def test_blocks_do_not_depend_on_where_the_text_was_cut(text: str, cuts: list[int]) -> None:
    assert _commit_in_pieces(text, cuts) == _commit_in_pieces(text, list(range(len(text))))


@given(_MARKDOWN)
def test_blocks_read_one_by_one_mean_what_the_whole_means(text: str) -> None:
    whole = _meaning([text])
    parts = _meaning([source for source in _sources(_commit_in_pieces(text, [])) if source])

    assert parts == whole


def _sources(blocks: list[Block]) -> list[str]:
    """Put code blocks together again: they are read as one, shown line by line."""
    sources = [""]
    is_inside = False
    for block in blocks:
        if block.kind == "text" or (block.kind == "fence" and not is_inside):
            sources.append("")
        sources[-1] += block.text
        is_inside = block.kind == "code" or block.opens is not None
    return sources


def _meaning(sources: list[str]) -> list[tuple[str, str]]:
    """Return what every block is and says; how a list is cut into lists of one item, and its spacing, is no matter."""
    return [
        (token.type, token.content)
        for source in sources
        for token in markdown_parser().parse(source)
        if not token.type.endswith(("list_open", "list_close")) and not token.type.startswith("paragraph")
    ]


def test_a_paragraph_is_committed_when_the_next_one_begins() -> None:
    committer = BlockCommitter()
    assert committer.feed("First.\n\n") == []

    assert committer.feed("S") == [Block("text", "First.\n\n")]
    assert committer.live == Block("text", "S")


def test_list_items_are_committed_one_by_one_and_join() -> None:
    committer = BlockCommitter()

    assert committer.feed("- a\n- b\n  more\n- c") == [Block("text", "- a\n")]
    assert committer.finish() == [
        Block("text", "- b\n  more\n", joins=True),
        Block("text", "- c", joins=True),
    ]


def test_code_is_committed_line_by_line() -> None:
    committer = BlockCommitter()
    opening, *code = committer.feed("```python\nx = 1\n\n- no list\n")

    assert opening.kind == "fence"
    assert opening.opens is not None
    assert opening.opens.language == "python"
    assert [block.text for block in code] == ["x = 1\n", "\n", "- no list\n"]
    assert {block.kind for block in code} == {"code"}


def test_a_fence_closes_only_with_as_many_marks_as_opened_it() -> None:
    committer = BlockCommitter()
    kinds = [block.kind for block in committer.feed("````\n```\n`````  \nafter\n\nx")]

    assert kinds == ["fence", "code", "fence", "text"]


def test_a_closing_fence_at_the_very_end_needs_no_newline() -> None:
    committer = BlockCommitter()
    committer.feed("```\nx\n")
    committer.feed("```")

    assert [block.kind for block in committer.finish()] == ["fence"]
    assert committer.live.kind == "text"
