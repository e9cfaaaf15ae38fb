"""Turn blocks of markdown into rows of styled text. It writes nothing: rows go to `live` or to the console.

Everything passes `_clean` last, after markdown has decoded its entities, so nothing a model writes can command
the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import ClassVar

from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment, Segments
from rich.syntax import Syntax
from rich.text import Text
from rich.theme import Theme

from turnwise_client.blocks import Block, Fence, markdown_parser
from turnwise_client.sanitise import for_terminal

Row = Sequence[Segment]

THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.block_quote": "italic",
        "markdown.link": "underline",
        "markdown.link_url": "blue",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.hr": "dim",
        "markdown.item.bullet": "cyan",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "reply.fence": "dim",
        "notice": "yellow",
        "error": "bold red",
        "quiet": "dim",
    }
)
"""No background colours: they would have to guess whether the terminal is dark or light."""

_CODE_THEME = "ansi_dark"
_CODE_CONTEXT_LINES = 200
"""How far back the colouring of a new line of code looks, so that a long block costs no more than this."""
_TAB_SIZE = 8
_MIN_WIDTH = 16
"""Below this, tables and lists have no room to be laid out; the terminal itself then cuts or wraps."""


class _LeftHeading(Heading):
    LEVEL_ALIGN: ClassVar = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _NestedCode(CodeBlock):
    """Code inside a list or a quotation; code at the top level is rendered line by line below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(_highlighted(str(self.text).rstrip("\n"), self.lexer_name), options)


class _ReplyMarkdown(Markdown):
    """Rich's markdown with our dialect; line breaks are kept, because a chat's lines are meant."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _NestedCode,
        "code_block": _NestedCode,
    }

    def __init__(self, source: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = markdown_parser().parse(source)
        _keep_line_breaks(self.parsed)


def _keep_line_breaks(tokens: Iterable[Token]) -> None:
    for token in tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def _highlighted(code: str, language: str) -> Text:
    """Colour `code`; the text keeps every line and, unlike Rich's default, every tab."""
    syntax = Syntax(code, language or "text", theme=_CODE_THEME, tab_size=0)
    text = syntax.highlight(code)
    text.tab_size = _TAB_SIZE
    return text


class BlockRenderer:
    """Renders one reply's blocks in order; remembers the code block it is in and where blank lines belong."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._fence: Fence | None = None
        self._code: list[str] = []
        self._is_first = True

    def finished(self, blocks: Iterable[Block], width: int) -> list[Row]:
        """Return the rows of blocks that will not change any more. Code is not wrapped, so that it can be copied."""
        rows: list[Row] = []
        for kind, group in groupby(blocks, key=lambda block: block.kind):
            if kind == "code":
                rows.extend(self._code_rows([block.text for block in group]))
                continue
            for block in group:
                rows.extend(self._fence_rows(block) if kind == "fence" else self._text_rows(block, width))
                self._is_first = self._is_first and not block.text.strip()
        return rows

    def unfinished(self, block: Block, width: int) -> list[Row]:
        """Return the rows of the block that is still growing, wrapped to `width` columns."""
        if block.kind == "text":
            return self._text_rows(block, width)
        if not block.text.strip():
            return []
        return self._wrapped(self._code_lines([block.text])[-1], width)

    def _gap(self, block: Block) -> list[Row]:
        return [] if self._is_first or block.joins else [[]]

    def _text_rows(self, block: Block, width: int) -> list[Row]:
        if not block.text.strip():
            return []
        return [*self._gap(block), *self._wrapped(_ReplyMarkdown(block.text), width)]

    def _fence_rows(self, block: Block) -> list[Row]:
        self._fence = block.opens
        self._code.clear()
        style = self._console.get_style("reply.fence")
        return [*self._gap(block), _clean([Segment(block.text.strip(), style)])]

    def _code_rows(self, lines: Sequence[str]) -> list[Row]:
        rows = [_clean(text.render(self._console)) for text in self._code_lines(lines)]
        self._code = [*self._code, *lines][-_CODE_CONTEXT_LINES:]
        return rows

    def _code_lines(self, lines: Sequence[str]) -> list[Text]:
        assert self._fence is not None
        indent, language = self._fence.indent, self._fence.language
        code = [line[min(indent, len(line) - len(line.lstrip(" "))) :] for line in (*self._code, *lines)]
        coloured = _highlighted("".join(code), language).split("\n", allow_blank=True)
        return list(coloured)[len(self._code) : len(code)]

    def _wrapped(self, renderable: RenderableType, width: int) -> list[Row]:
        options = self._console.options.update(width=max(width, _MIN_WIDTH), height=None, overflow="fold")
        return _trim([_clean(line) for line in self._console.render_lines(renderable, options, pad=False)])


def _trim(rows: list[Row]) -> list[Row]:
    """Drop empty rows at both ends: where blank lines belong is decided once, by `_gap`."""
    filled = [number for number, row in enumerate(rows) if row]
    return rows[filled[0] : filled[-1] + 1] if filled else []


def _clean(row: Iterable[Segment]) -> Row:
    """Make every segment safe and take the padding off the end, which would wrap when the window narrows."""
    segments = [Segment(for_terminal(text), style) for text, style, control in row if not control]
    while segments and not segments[-1].text.strip(" "):
        segments.pop()
    if segments:
        segments[-1] = Segment(segments[-1].text.rstrip(" "), segments[-1].style)
    return segments


def row_width(row: Row) -> int:
    """Return how many columns `row` takes on one unbounded line."""
    return sum(cell_len(segment.text) for segment in row)


def encode(console: Console, rows: Iterable[Row]) -> str:
    """Return rows as the characters to write, colours included as far as the console has them; no final newline."""
    lines = []
    for row in rows:
        with console.capture() as capture:
            console.print(Segments(row), end="", soft_wrap=True)
        lines.append(capture.get())
    return "\n".join(lines)
