"""Renders messages with a model's chat template and finds the replies in the text; it makes no token.

Control tokens inside a message stand between two private characters in the rendered text, as in transformers'
`sanitize_control_tokens`, so that they are never taken for the template's own.
"""

import functools
import logging
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from turnwise_training.data import Message
from turnwise_training.errors import ConfigurationError, DataError

# transformers' own private characters: a template may take a message apart, and both sides must see it alike.
MARK_START, MARK_END = "\U000f0000", "\U000f0001"

PROBE: tuple[Message, ...] = (
    {"role": "system", "content": "Rule seven."},
    {"role": "user", "content": "Question five?"},
    {"role": "assistant", "content": "Answer three."},
    {"role": "user", "content": "Question eight?"},
    {"role": "assistant", "content": "Answer two."},
)
"""A conversation no text of which is part of another, rendered once to see what a template does."""

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

_log = logging.getLogger(__name__)

Span = tuple[int, int]
"""The first character of a reply and the first after its end token."""


class ChatTemplate:
    """The chat template of one tokenizer: what it understands is found by rendering, once."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Probe the template; raises ConfigurationError if dialogues rendered by it could not be trained on."""
        self._name = tokenizer.name_or_path or "this tokenizer"
        if not isinstance(tokenizer.chat_template, str):
            raise ConfigurationError(
                f"{self._name} has no chat template; put a chat_template.jinja beside it"
            )
        self._source: str = tokenizer.chat_template
        self._variables: Mapping[str, str] = tokenizer.special_tokens_map
        self.control_tokens = _control_tokens(tokenizer)
        alternatives = "|".join(map(re.escape, self.control_tokens)) or "(?!)"
        self._control = re.compile(alternatives)
        self.marks = re.compile(f"{MARK_START}({alternatives}){MARK_END}|[{MARK_START}{MARK_END}]")
        self._has_blocks = bool(_GENERATION.search(self._source))
        self._has_system_role = self._shows_system()
        self._must_start_with_user = self._fails(PROBE[2:4])
        self.turn_end = self._find_turn_end()
        self._own_end = re.compile(f"(?<!{MARK_START}){re.escape(self.turn_end)}")
        self.probe = self._choose_probe()
        """A conversation by which spans are verified."""
        if not self._has_blocks:
            _announce_prefixes(self._name)

    def render_prompt(self, messages: Sequence[Message]) -> str:
        """Return the text that ends where the assistant's reply begins."""
        return self._render(self._fit(messages), prompt=True)[0]

    def render(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """Return the text and the span of each assistant message, its end token included.

        Raises DataError where the template cannot render the messages or a reply cannot be found.
        """
        fitted = self._fit(messages)
        text, blocks = self._render(fitted, prompt=False)
        replies = [number for number, message in enumerate(fitted) if message["role"] == "assistant"]
        starts = blocks if self._has_blocks else [self._start(fitted[:number], text) for number in replies]
        if len(starts) != len(replies):
            raise DataError(f"the chat template marks {len(starts)} replies of {len(replies)}")
        return text, [(start, self._end(text, start)) for start in starts]

    def _start(self, before: Sequence[Message], text: str) -> int:
        prompt, _ = self._render(before, prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        plain, _ = self._render(before, prompt=False)
        if text.startswith(plain):
            raise DataError(
                f"the generation prompt {prompt[len(plain) :]!r} is not what a reply follows in the chat template;"
                " write the same there"
            )
        raise DataError(
            f"the chat template writes the first {len(before)} messages differently when more follow, so the reply"
            " after them cannot be found; write messages in their order, each alike wherever it stands"
        )

    def _end(self, text: str, start: int) -> int:
        end = self._own_end.search(text, start)
        if end is None:
            raise DataError(f"the chat template ends a reply without {self.turn_end!r}")
        return end.end()

    def _render(self, messages: Sequence[Message], *, prompt: bool) -> tuple[str, list[int]]:
        """Return the text with marks, and where the template's generation blocks begin."""
        marked = [{"role": each["role"], "content": self._mark(each["content"])} for each in messages]
        with_blocks = self._has_blocks and not prompt
        try:
            texts, blocks = render_jinja_template(
                conversations=[marked],
                chat_template=self._source,
                return_assistant_tokens_mask=with_blocks,
                add_generation_prompt=prompt,
                **self._variables,
            )
        except TemplateError as error:
            raise DataError(f"the chat template cannot render these messages: {error}") from error
        return texts[0], [first for first, _ in blocks[0]] if with_blocks else []

    def _mark(self, text: str) -> str:
        text = text.replace(MARK_START, "").replace(MARK_END, "")
        return self._control.sub(lambda match: f"{MARK_START}{match[0]}{MARK_END}", text)

    def _fit(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Fold the system text into the first user message and begin with the user, where the template needs it.

        The server does the same, so that both render the same ids.
        """
        has_system = bool(messages) and messages[0]["role"] == "system"
        folds = has_system and not self._has_system_role
        turns = list(messages[1:] if has_system else messages)
        if (folds or self._must_start_with_user) and (not turns or turns[0]["role"] != "user"):
            turns.insert(0, {"role": "user", "content": ""})
        if not folds:
            return [*messages[:1], *turns] if has_system else turns
        parts = (messages[0]["content"], turns[0]["content"])
        turns[0] = {"role": "user", "content": "\n\n".join(part for part in parts if part)}
        return turns

    def _shows_system(self) -> bool:
        try:
            text, _ = self._render(PROBE[:2], prompt=True)
        except DataError:
            return False
        return PROBE[0]["content"] in text

    def _fails(self, messages: Sequence[Message]) -> bool:
        try:
            self._render(messages, prompt=True)
        except DataError:
            return True
        return False

    def _find_turn_end(self) -> str:
        """Return the control token that the template writes after a reply."""
        try:
            text, _ = self._render(PROBE[1:3], prompt=False)
        except DataError as error:
            raise ConfigurationError(f"{self._name}: {error}") from error
        _, content, tail = text.rpartition(PROBE[2]["content"])
        end = self._control.search(tail)
        if not content or end is None:
            raise ConfigurationError(
                f"the chat template of {self._name} writes no special token after a reply, so a model could never"
                " learn to end its turn; write the end-of-turn token there"
            )
        return end[0]

    def _choose_probe(self) -> tuple[Message, ...]:
        """Return the probe without its system message where a template has no such role or puts it elsewhere.

        Some of Mistral's write it where the last message is a question, and not at all behind an answer. Rows with a
        system message are then errors of their own; with blocks they would pass unnoticed, so the template is refused.
        """
        self._refuse_rearranged(PROBE[1:])
        if self._has_system_role:
            try:
                self._refuse_rearranged(PROBE)
            except ConfigurationError:
                if self._has_blocks:
                    raise
                return PROBE[1:]
            return PROBE
        return PROBE[1:]

    def _refuse_rearranged(self, messages: Sequence[Message]) -> None:
        text, _ = self._render(messages, prompt=False)
        places = [text.find(message["content"]) for message in messages]
        for message, (place, following) in zip(messages, pairwise([*places, len(text)]), strict=True):
            said = f"the {message['role']}'s {message['content']!r}"
            if place < 0:
                raise ConfigurationError(
                    f"the chat template of {self._name} drops {said}; write every message"
                )
            if 0 <= following < place:
                raise ConfigurationError(
                    f"the chat template of {self._name} moves {said} behind a later message; write them in order"
                )


def _control_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """Return what transformers' `sanitize_control_tokens` takes for control tokens, longest first."""
    named = set(tokenizer.chat_control_tokens or ())
    template = str(tokenizer.chat_template)
    tokens = [
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special
        or token.content in named
        or (token.content in template and not token.content.isspace())
    ]
    return tuple(sorted(tokens, key=len, reverse=True))


@functools.cache
def _announce_prefixes(name: str) -> None:
    _log.warning(
        "the chat template of %s has no {%% generation %%} block; replies are found by rendering each prompt",
        name,
    )
