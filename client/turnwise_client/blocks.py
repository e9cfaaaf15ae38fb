"""Cut growing markdown into blocks that are finished and one that is not. Pure text; it knows no terminal.

Only the last block of a markdown text can still change when more text arrives (Will McGugan,
https://willmcgugan.github.io/streaming-markdown/). So everything before it can be shown once and for good, and a
redraw costs as much as one block, not as the whole answer. Two blocks that can grow long are cut further: a list
into its items, a fenced code block into its lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

BlockKind = Literal["text", "fence", "code"]
"""`text`: whole markdown blocks; `fence`: an opening or closing line of code fences; `code`: a line between them."""

_MAY_CONTINUE = " \t-+*0123456789"
"""After a blank line only a line that begins so can belong to an open list or to indented code."""


@dataclass(frozen=True, slots=True)
class Fence:
    """An opening code fence, such as three backticks and the word `python`."""

    indent: int
    mark: str
    language: str

    def is_closed_by(self, line: str) -> bool:
        """Tell whether `line` is this fence's end (CommonMark 0.31, section 4.5)."""
        mark = re.escape(self.mark[0])
        return re.fullmatch(rf" {{0,3}}{mark}{{{len(self.mark)},}}[ \t]*\n?", line) is not None


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of source text, newlines included."""

    kind: BlockKind
    text: str
    joins: bool = False
    """Part of the same list or code block as the block before: no blank line between them."""
    opens: Fence | None = None
    """The fence, when this is the opening line of one."""


def markdown_parser() -> MarkdownIt:
    """Return the dialect all blocks are read in: CommonMark with tables and strikethrough, nothing that hides text.

    HTML, images and bare references are left as the text they are, because a terminal could only drop them; link
    definitions too, because they would let a later block change an earlier one.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    return parser.disable(["html_block", "html_inline", "reference", "image", "autolink"])


class BlockCommitter:
    """Takes text in pieces of any size and gives finished blocks back.

    The blocks returned so far plus `live` always equal the text fed so far, and the blocks do not depend on where
    the text was cut into pieces.
    """

    def __init__(self) -> None:
        self._parser = markdown_parser()
        self._parser.core.ruler.enableOnly(["normalize", "block"])
        self._lines: list[str] = []
        self._partial = ""
        self._joins = False
        self._fence: Fence | None = None

    @property
    def live(self) -> Block:
        """The unfinished rest."""
        kind: BlockKind = "code" if self._fence else "text"
        return Block(kind, "".join(self._lines) + self._partial, joins=self._joins)

    def feed(self, text: str) -> list[Block]:
        """Add `text` and return the blocks it finished."""
        *complete, self._partial = (self._partial + text).split("\n")
        blocks = [block for line in complete for block in self._add_line(line + "\n")]
        if self._partial and self._is_closed_by(self._partial[0]):
            blocks.append(self._commit_all())
        return blocks

    def finish(self) -> list[Block]:
        """Return the rest as finished blocks: the text is complete. The committer is then empty."""
        last_line, self._partial = self._partial, ""
        blocks = self._add_line(last_line) if last_line else []
        if self._lines:
            blocks.append(self._commit_all())
        self._fence = None
        return blocks

    def _is_closed_by(self, char: str) -> bool:
        """Tell whether a line that begins with `char` ends whatever is still open.

        A paragraph is often one long line, and what stands before it need not wait for its end.
        """
        return bool(self._lines) and not self._lines[-1].strip() and char not in _MAY_CONTINUE

    def _add_line(self, line: str) -> list[Block]:
        if self._fence:
            return [self._code_line(line, self._fence)]
        self._lines.append(line)
        tokens = self._parser.parse("".join(self._lines))
        starts = [token for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
        if not starts:
            return []
        last = starts[-1]
        blocks = self._commit_before(last)
        if last.type == "fence":
            blocks.append(self._open_fence(last))
        elif last.type in ("heading_open", "hr"):
            blocks.append(self._commit_all())
        elif last.type in ("bullet_list_open", "ordered_list_open"):
            blocks.extend(self._commit_items(tokens, start_of_list=_first_line(last)))
        return blocks

    def _commit_before(self, last: Token) -> list[Block]:
        if _first_line(last) == 0:
            return []
        block = self._commit(_first_line(last))
        self._joins = False
        return [block]

    def _commit_all(self) -> Block:
        block = self._commit(len(self._lines))
        self._joins = False
        return block

    def _commit_items(self, tokens: list[Token], *, start_of_list: int) -> list[Block]:
        items = [token for token in tokens if token.type == "list_item_open" and token.level == 1]
        finished_lines = _first_line(items[-1]) - start_of_list
        if not finished_lines:
            return []
        block = self._commit(finished_lines)
        self._joins = True
        return [block]

    def _open_fence(self, token: Token) -> Block:
        language = token.info.split()[0] if token.info.split() else ""
        line = self._lines[0]
        self._fence = Fence(indent=len(line) - len(line.lstrip(" ")), mark=token.markup, language=language)
        self._lines.clear()
        block = Block("fence", line, joins=self._joins, opens=self._fence)
        self._joins = True
        return block

    def _code_line(self, line: str, fence: Fence) -> Block:
        if not fence.is_closed_by(line):
            return Block("code", line, joins=True)
        self._fence, self._joins = None, False
        return Block("fence", line, joins=True)

    def _commit(self, line_count: int) -> Block:
        text = "".join(self._lines[:line_count])
        del self._lines[:line_count]
        return Block("text", text, joins=self._joins)


def _first_line(token: Token) -> int:
    assert token.map is not None
    return token.map[0]
