"""Checks the text of a grammar, which is llguidance's own form, before any engine is asked to follow it.

Light: the server's process imports this, and neither torch nor a tokenizer.
"""

from __future__ import annotations

import re
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from turnwise_server.errors import RequestError

_PLACE = re.compile(r"^at \d+\(\d+\): failed to compile JSON schema: ")
_TOKEN_ID = re.compile(r"<\[[0-9]+\]>")


def parser_limits() -> LLParserLimits:
    """Return what a grammar may cost: about 0.1 s to compile, some MiB of memory, milliseconds a token."""
    return LLParserLimits(max_items_in_row=10_000, max_grammar_size=100_000, verbose_errors=False)


def check_grammar(text: str, *, param: str) -> None:
    """Compile a grammar for an alphabet of bytes and take its first step.

    Raises:
        RequestError: it cannot be compiled, exceeds the limits or matches nothing; it names `param`.
    """
    without_ids = _TOKEN_ID.sub(f"<[{_Bytes.control_token_id}]>", text)
    matcher = LLMatcher(_bytes_tokenizer(), without_ids, log_level=0, limits=parser_limits())
    if not matcher.is_error():
        matcher.compute_ff_bytes()
        matcher.compute_bitmask()
    if matcher.is_error():
        raise RequestError(
            f"Invalid '{param}': no reply can be held to it: {_reason(matcher.get_error())}.",
            param=param,
            code="invalid_value",
        )


def _reason(error: str) -> str:
    """Return what the library's message says, without the parser's state and the library's own options."""
    if error.startswith("NoExtension"):
        return "nothing that can be written is valid"
    if "oneOf" in error:
        return "'oneOf' is supported only where types or constant texts tell its schemas apart; use 'anyOf'"
    regex_fault = error.rpartition("\nerror: ")[2] if "regex parse error" in error else error
    return _PLACE.sub("", regex_fault.partition("\n")[0])[:300].rstrip(".")


class _Bytes:
    """A tokenizer of single bytes, in the form that llguidance asks for; one token stands for every control token."""

    eos_token_id = 256
    control_token_id = 257
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>", b"<control>")
    special_token_ids = (eos_token_id, control_token_id)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _bytes_tokenizer() -> LLTokenizer:
    from llguidance import TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()))
