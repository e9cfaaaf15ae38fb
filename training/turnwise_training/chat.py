"""Turns rows into token ids: the only place of the training package that tokenises."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from turnwise_training.data import Conversation, Message, Row, Text
from turnwise_training.errors import ConfigurationError, DataError
from turnwise_training.template import ChatTemplate, Span

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


@dataclass(frozen=True)
class Encoded:
    """One row as tokens: `trained[i]` says whether `ids[i]` is a token the loss is taken on."""

    ids: list[int]
    trained: list[bool]
    weight: float = 1.0
    """What each trained token counts in the loss."""


def load_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model directory; raises ConfigurationError if it has none, or no chat template."""
    if not (path / "tokenizer.json").is_file():
        raise ConfigurationError(f"{path} holds no tokenizer.json; run `turnwise-train tokenizer` first")
    tokenizer = AutoTokenizer.from_pretrained(path)
    if not tokenizer.chat_template:
        raise ConfigurationError(
            f"{path} has no chat template; put a chat_template.jinja beside tokenizer.json"
        )
    return tokenizer


class Encoder:
    """Encodes rows exactly as `tokenizer.apply_chat_template(..., sanitize_control_tokens=True)` does, in batches.

    Control tokens written by the template become tokens; the same characters inside a message stay text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Prepare a tokenizer and verify on a probe that the replies it would be trained on are the replies.

        Raises ConfigurationError if they are not, if a conversation begins twice (two BOS tokens), or if a prompt is
        not what the conversation it belongs to begins with.
        """
        self.tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._writing = _bare(tokenizer)
        self._plain = _bare(tokenizer)
        self._plain.encode_special_tokens = True
        self._newline = self._writing.encode("\n", add_special_tokens=False).ids
        self._ids = {token.content: number for number, token in tokenizer.added_tokens_decoder.items()}
        self._head = _added_before_text(tokenizer)
        self.turn_end: int = self._ids[self._template.turn_end]
        """The token that ends a reply."""
        self.end_of_text = self._end_of_text()
        """The token that stands between documents."""
        self.end_ids = frozenset({self.turn_end, self.end_of_text, *_configured_ends(tokenizer)})
        """Every token that ends a sampled reply."""
        pad = tokenizer.pad_token_id
        self.pad_id = self.end_of_text if pad is None else int(pad)
        """Fills rows; it may be a token of the text too, so masks are never made from it."""
        self._verify()

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Encode documents (every token trained) and conversations (the assistant's spans trained).

        Raises DataError, naming the row, where the template cannot render a conversation.
        """
        texts = [row for row in rows if isinstance(row, Text)]
        documents = iter(
            self._plain.encode_batch([row.text for row in texts], add_special_tokens=False) if texts else ()
        )
        talks = iter(self._encode_conversations([row for row in rows if not isinstance(row, Text)]))
        return [
            next(talks) if not isinstance(row, Text) else self._document(next(documents).ids) for row in rows
        ]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens that a reply to `messages` follows: what the server would sample behind."""
        return [token for token, _ in self._pieces(self._template.render_prompt(messages))]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens without the special ones."""
        return self._writing.decode(list(ids), skip_special_tokens=True)

    def _document(self, ids: list[int]) -> Encoded:
        whole = [*self._head, *ids]
        return Encoded(whole, [True] * len(whole))

    def _encode_conversations(self, rows: Sequence[Row]) -> Iterator[Encoded]:
        rendered = [self._render(row) for row in rows]
        heads = self._writing.encode_batch(
            [self._template.marks.split(text, 1)[0] for text, _, _ in rendered], add_special_tokens=False
        )
        for (text, spans, weight), head in zip(rendered, heads, strict=True):
            tokens = list(zip(head.ids, (start for start, _ in head.offsets), strict=True))
            if mark := self._template.marks.search(text):
                tokens += self._pieces(text, mark.start())
            edges = [edge for span in spans for edge in span]
            trained = [bisect_right(edges, start) % 2 == 1 for _, start in tokens]
            yield Encoded([token for token, _ in tokens], trained, weight)

    def _render(self, row: Row) -> tuple[str, list[Span], float]:
        """Return the text, the spans to train on and the row's weight."""
        if not isinstance(row, Conversation):
            raise DataError(f"{row.where}: only text and conversations can be encoded whole")
        try:
            text, spans = self._template.render(row.messages)
        except DataError as error:
            raise DataError(f"{row.where}: {error}" if row.where else str(error)) from error
        replies = [number for number, each in enumerate(row.messages) if each["role"] == "assistant"]
        kept = [span for number, span in zip(replies, spans, strict=True) if row.trains(number)]
        return text, kept, row.weight

    def _pieces(self, text: str, at: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the tokens of a rendered text from character `at` on, each with its first character.

        The text is cut at its marks, so that what stands on either side of one cannot join; marked control tokens are
        spelled out.
        """
        for mark in self._template.marks.finditer(text, at):
            yield from self._piece(self._writing, text[at : mark.start()], at)
            if spelled := mark[1]:
                yield from self._piece(self._plain, spelled, mark.start(1), never=self._ids[spelled])
            at = mark.end()
        yield from self._piece(self._writing, text[at:], at)

    def _piece(
        self, tokenizer: Tokenizer, text: str, at: int, *, never: int | None = None
    ) -> Iterator[tuple[int, int]]:
        if not text:
            return
        # Behind a newline a SentencePiece tokenizer adds no space; transformers encodes later pieces in this way too.
        shift = 1 if at else 0
        encoding = tokenizer.encode("\n" * shift + text, add_special_tokens=False)
        skipped = len(self._newline) * shift
        if encoding.ids[:skipped] != self._newline[:skipped]:
            encoding, skipped, shift = tokenizer.encode(text, add_special_tokens=False), 0, 0
        if never in encoding.ids:
            raise DataError(f"the tokenizer cannot spell {text!r} out; remove it from the message")
        for token, (start, _) in zip(encoding.ids[skipped:], encoding.offsets[skipped:], strict=True):
            yield token, at + start - shift

    def _end_of_text(self) -> int:
        end = self._ids.get(END_OF_TEXT, self.tokenizer.eos_token_id)
        if end is None:
            raise ConfigurationError(
                f"the tokenizer has neither {END_OF_TEXT} nor an eos_token; set eos_token"
            )
        return int(end)

    def _verify(self) -> None:
        """Encode the probe and raise ConfigurationError unless its trained spans are its replies."""
        messages = self._template.probe
        name = self.tokenizer.name_or_path or "this tokenizer"
        try:
            (encoded,) = self.encode([Conversation(messages)])
        except DataError as error:
            raise ConfigurationError(f"{name}: {error}") from error
        replies = [each["content"] for each in messages if each["role"] == "assistant"]
        spans = list(trained_runs(encoded))
        if [self.decode(span).strip() for span in spans] != replies or any(
            self.turn_end in span[:-1] or span[-1] != self.turn_end for span in spans
        ):
            found = [self.tokenizer.decode(span) for span in spans]
            raise ConfigurationError(
                f"{name}: the loss would fall on {found!r} in place of {replies!r} and their end tokens; mend the"
                " {% generation %} blocks of the chat template"
            )
        bos = self.tokenizer.bos_token_id
        if bos is not None and bos not in self.end_ids and encoded.ids.count(bos) > 1:
            raise ConfigurationError(
                f"{name}: the chat template writes {self.tokenizer.bos_token!r} more than once"
            )
        for number, message in enumerate(messages):
            prompt = self.prompt_ids(messages[:number]) if message["role"] == "assistant" else []
            if encoded.ids[: len(prompt)] != prompt:
                raise ConfigurationError(
                    f"{name}: the chat template's generation prompt is not what a reply follows in a conversation;"
                    " end both in the same tokens"
                )


def trained_runs(encoded: Encoded) -> Iterator[list[int]]:
    """Yield each unbroken run of trained tokens."""
    run: list[int] = []
    for token, is_trained in zip(encoded.ids, encoded.trained, strict=True):
        if is_trained:
            run.append(token)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _bare(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    """Return a copy that adds no token and trims no offset: the post-processor does both."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(content))


def _added_before_text(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the BOS token if this tokenizer puts it before plain text."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else []


def _configured_ends(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return the end tokens that the model directory of a tokenizer and the tokenizer itself name."""
    path = Path(tokenizer.name_or_path) / "generation_config.json"
    configured = (
        json.loads(path.read_text()).get("eos_token_id")
        if tokenizer.name_or_path and path.is_file()
        else None
    )
    own = tokenizer.eos_token_id
    ends = [*configured] if isinstance(configured, list) else [configured]
    return [end for end in (*ends, own) if end is not None]
