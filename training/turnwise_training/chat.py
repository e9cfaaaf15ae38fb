"""Turns rows into token ids: the only place of the training package that tokenises."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from turnwise_training.data import Conversation, Row, Text
from turnwise_training.errors import ConfigurationError, DataError

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, PAD, TURN_START, TURN_END)

# An assistant's text is trimmed because a leading newline would join the header's into one token, which no
# generation prompt ends in. The end token stands inside the block: the model is trained to end its turn.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% generation %}{{ message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_GUARD = "\ue000"
"""Put inside control characters of a message so that they are not taken for the template's; never encoded."""


@dataclass(frozen=True)
class Encoded:
    """One row as tokens: `trained[i]` says whether `ids[i]` is a token the loss is taken on."""

    ids: list[int]
    trained: list[bool]


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model directory.

    Raises ConfigurationError if there is none or its chat template marks no assistant spans.
    """
    if not (path / "tokenizer.json").is_file():
        raise ConfigurationError(f"{path} holds no tokenizer.json; run `turnwise-train tokenizer` first")
    tokenizer = AutoTokenizer.from_pretrained(path)
    if "{% generation %}" not in (tokenizer.chat_template or ""):
        raise ConfigurationError(
            f"the chat template of {path} has no {{% generation %}} block; add one around replies"
        )
    return tokenizer


class Encoder:
    """Encodes rows exactly as `tokenizer.apply_chat_template(..., sanitize_control_tokens=True)` does, in batches.

    Control tokens written by the template become tokens; the same characters inside a message stay text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        control = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._control = re.compile("(" + "|".join(re.escape(token) for token in control) + ")")
        self._ids = {token: tokenizer.convert_tokens_to_ids(token) for token in control}
        self.end_of_text = self._ids[END_OF_TEXT]

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Encode documents (every token trained) and conversations (the assistant's spans trained)."""
        rendered = [self._render(row) for row in rows]
        pieces = [self._control.split(text) for text, _ in rendered]
        texts = [piece.replace(_GUARD, "") for row in pieces for piece in row[::2]]
        encodings = iter(self._plain.encode_batch(texts, add_special_tokens=False))
        return [self._join(row, spans, encodings) for row, (_, spans) in zip(pieces, rendered, strict=True)]

    def _render(self, row: Row) -> tuple[str, list[tuple[int, int]]]:
        """Return the text with guarded control characters, and its trained spans in characters."""
        if isinstance(row, Text):
            text = self._guard(row.text)
            return text, [(0, len(text))]
        if not isinstance(row, Conversation):
            raise DataError(f"{row.where}: only text and conversations can be encoded whole")
        messages = [{"role": m["role"], "content": self._guard(m["content"])} for m in row.messages]
        (text,), (spans,) = render_jinja_template(
            conversations=[messages],
            chat_template=self.tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return text, spans

    def _guard(self, text: str) -> str:
        return self._control.sub(lambda match: match[0][0] + _GUARD + match[0][1:], text.replace(_GUARD, ""))

    def _join(
        self, pieces: list[str], spans: list[tuple[int, int]], encodings: Iterator[Encoding]
    ) -> Encoded:
        ids: list[int] = []
        starts: list[int] = []
        start = 0
        for number, piece in enumerate(pieces):
            if number % 2:
                ids.append(self._ids[piece])
                starts.append(start)
            else:
                encoding = next(encodings)
                ids.extend(encoding.ids)
                starts.extend(start + offset for offset in _unguarded_starts(piece, encoding))
            start += len(piece)
        return Encoded(ids, [any(first <= at < last for first, last in spans) for at in starts])


def _unguarded_starts(piece: str, encoding: Encoding) -> Iterator[int]:
    """Yield each token's first character as an index into `piece`, guards counted."""
    if _GUARD not in piece:
        yield from (start for start, _ in encoding.offsets)
        return
    kept = [index for index, character in enumerate(piece) if character != _GUARD]
    yield from (kept[start] for start, _ in encoding.offsets)
