"""The exact bytes that single tokens stand for, as logprobs report them. Streamed text is the detokenizer's work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

TokenBytes = Callable[[int], bytes]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> TokenBytes:
    """Return a function from token id to bytes, exact also for tokens that are parts of characters.

    Byte-level vocabularies (GPT-2's and its heirs') and byte-fallback ones (SentencePiece's) write bytes in their
    own alphabets; for any other the decoded text is the best there is.
    """
    decoder = json.dumps(json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder"))
    special = frozenset(tokenizer.added_tokens_decoder)

    def added(token_id: int) -> bytes:
        return str(tokenizer.decode([token_id])).encode()

    if '"ByteLevel"' in decoder:
        alphabet = byte_level_alphabet()

        def byte_level(token_id: int) -> bytes:
            token = None if token_id in special else tokenizer.convert_ids_to_tokens(token_id)
            return added(token_id) if token is None else bytes(alphabet[char] for char in token)

        return byte_level
    if '"ByteFallback"' in decoder:

        def byte_fallback(token_id: int) -> bytes:
            token = None if token_id in special else tokenizer.convert_ids_to_tokens(token_id)
            if token is None:
                return added(token_id)
            match = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(match[1], 16)]) if match else token.replace("▁", " ").encode()

        return byte_fallback
    return added


def longest_token_bytes(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return a length in bytes that no token exceeds; None where normalising may shorten the text beforehand."""
    if tokenizer.backend_tokenizer.normalizer is not None:
        return None
    return max(len(token.encode()) for token in tokenizer.get_vocab())


def byte_level_alphabet() -> dict[str, int]:
    """Map GPT-2's printable stand-ins to the bytes they mean (GPT-2's `bytes_to_unicode`, inverted)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(256 + offset): byte for offset, byte in enumerate(others)}
