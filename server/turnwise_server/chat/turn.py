"""Orchestrates one reply: messages in, text events out. It knows the engine's contract, never HTTP.

A reply is prepared first (pure work, every refusal happens here) and started then (queued in the engine), so that a
caller can answer a bad request before any work is done. The whole reply is the sum of its events: streamed and whole
replies cannot differ.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tokenizers import Tokenizer

from turnwise_server.chat.call_plan import CallPlan
from turnwise_server.chat.detokenizer import Piece
from turnwise_server.chat.messages import ClientMessage
from turnwise_server.chat.reply_reader import CallPiece, ReplyReader, reply_reader
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.token_text import TokenBytes
from turnwise_server.chat.tools import Tool, ToolUse
from turnwise_server.engine.base import Generation, SamplingParams, TokenEvent
from turnwise_server.engine.timeline import Timeline

Truncation = Literal["auto", "disabled"]

_SEED_RANGE = 2**63


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asks for, already validated. None means the checkpoint's recommendation."""

    id: str
    messages: tuple[ClientMessage, ...] = ()
    end: PromptEnd = PromptEnd.REPLY
    """OPEN continues the last message, which must be the assistant's."""
    tenant: str = ""
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    truncation: Truncation = "auto"
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    grammar: str | None = None
    """What the text is held to, as `chat.structured` writes it; None is any text."""
    tools: ToolUse = field(default_factory=ToolUse)


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A request that will fit: its prompt and the limits that hold for it."""

    id: str
    tenant: str
    prompts: tuple[tuple[int, ...], ...]
    """Token ids: one prompt for a conversation, one or more where the client wrote them."""
    sampling: SamplingParams
    n: int
    """Choices of each prompt; those of the first prompt come first."""
    stop: tuple[str, ...]
    dropped_messages: int = 0
    """How many of the client's messages were left out to make the rest fit."""
    calls: CallPlan | None = None
    """How tools may be called; None if none may be."""
    messages: tuple[ClientMessage, ...] = ()
    """What of the conversation the model reads, as it was given; texts without a template as if a user said them."""
    tools: tuple[Tool, ...] = ()
    """What the client offered to call."""
    has_form: bool = False
    """Whether the client asked for text of a form, such as JSON."""
    begins_message: bool = False
    """Whether the reply is a message from its beginning, in words of the model's choice: it may be prefaced."""
    goes_on: bool = False
    """Whether the reply continues the last message, or for each prompt its own one of `messages`."""

    @property
    def choices(self) -> int:
        """How many choices the reply has."""
        return self.n * len(self.prompts)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompts, each counted once."""
        return sum(map(len, self.prompts))

    @property
    def max_tokens(self) -> int:
        return self.sampling.max_tokens


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as logprobs show it: text (U+FFFD where it is part of a character), bytes, natural-log probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top: tuple[TokenText, ...] = ()
    offset: int = 0
    """Where its text begins, or the character that it is a part of: characters from the start of the choice."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of choice `index`; `logprobs` are those of the tokens that the text completes."""

    index: int
    text: str
    logprobs: tuple[TokenText, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of tool call number `call` of choice `index`: `id` and `name` come once, at its beginning."""

    index: int
    call: int
    arguments: str
    id: str | None = None
    name: str | None = None
    logprobs: tuple[TokenText, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """Choice `index` is complete; nothing more comes for it."""

    index: int
    finish_reason: Literal["stop", "length", "tool_calls"]
    """"length" wins: of a reply that was cut, the last call may be half a call."""
    stop_string: str | None = None
    """Which of the client's stop strings ended it, if one did."""


TurnEvent = TextDelta | ToolCallDelta | ChoiceFinished


def seed_of_choice(seed: int | None, index: int) -> int:
    """Give every choice a seed of its own that follows from the request's; without one, a fresh seed."""
    return secrets.randbelow(_SEED_RANGE) if seed is None else (seed + index) % _SEED_RANGE


class Turn:
    """A reply being generated: iterate it once for events, `cancel` it at any moment."""

    def __init__(
        self,
        generations: tuple[Generation, ...],
        *,
        tokenizer: Tokenizer,
        token_bytes: TokenBytes,
        stop: tuple[str, ...],
        calls: CallPlan | None = None,
    ) -> None:
        self._generations = generations
        self._tokenizer = tokenizer
        self._token_bytes = token_bytes
        self._stop = stop
        self._calls = calls
        self.cached_tokens = 0
        self.completion_tokens = 0

    @property
    def timelines(self) -> tuple[Timeline, ...]:
        """When what happened to each choice."""
        return tuple(generation.timeline for generation in self._generations)

    def cancel(self) -> None:
        """Stop every choice and free its slot. Never blocks; a no-op once finished."""
        for generation in self._generations:
            generation.cancel()

    def cancel_choice(self, index: int) -> None:
        """Stop one choice and free its slot. Never blocks; a no-op once finished."""
        self._generations[index].cancel()

    async def __aiter__(self) -> AsyncIterator[TurnEvent]:
        """Yield events until every choice is finished. Leaving the loop early cancels what still runs.

        Raises:
            EngineDeadError: the engine ended before the reply did.
        """
        try:
            if len(self._generations) == 1:
                async for event in self._choice(0):
                    yield event
            else:
                async for event in self._merged():
                    yield event
        finally:
            self.cancel()

    async def _merged(self) -> AsyncIterator[TurnEvent]:
        """Events of several choices, in the order in which they happen."""
        events: asyncio.Queue[TurnEvent | BaseException | None] = asyncio.Queue()

        async def pump(index: int) -> None:
            try:
                async for event in self._choice(index):
                    events.put_nowait(event)
            except Exception as error:  # noqa: BLE001 - handed over to the consumer, who raises it
                events.put_nowait(error)
            else:
                events.put_nowait(None)

        tasks = [asyncio.create_task(pump(index)) for index in range(len(self._generations))]
        try:
            unfinished = len(tasks)
            while unfinished:
                event = await events.get()
                if event is None:
                    unfinished -= 1
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _choice(self, index: int) -> AsyncIterator[TurnEvent]:
        generation = self._generations[index]
        reader: ReplyReader[TokenText] = reply_reader(
            self._tokenizer, self._token_bytes, self._stop, self._calls
        )
        async for event in generation:
            self.cached_tokens = max(self.cached_tokens, event.cached_tokens)
            self.completion_tokens += 1
            if event.finish_reason != "stop":
                note = self._note(event, offset=reader.decoded_characters)
                for piece in reader.feed(event.token_id, note):
                    yield self._delta(index, piece)
            if reader.is_over:
                generation.cancel()
                yield ChoiceFinished(index, self._reason(reader), reader.stop_string)
                return
            if event.finish_reason is not None:
                is_cut = event.finish_reason == "length"
                for piece in reader.finish(is_cut=is_cut):
                    yield self._delta(index, piece)
                is_cut = is_cut and reader.stop_string is None
                yield ChoiceFinished(index, "length" if is_cut else self._reason(reader), reader.stop_string)
                return

    @staticmethod
    def _reason(reader: ReplyReader[TokenText]) -> Literal["stop", "tool_calls"]:
        return "tool_calls" if reader.calls else "stop"

    @staticmethod
    def _delta(index: int, piece: Piece[TokenText] | CallPiece[TokenText]) -> TurnEvent:
        if isinstance(piece, Piece):
            return TextDelta(index, piece.text, piece.notes)
        delta = piece.delta
        return ToolCallDelta(index, delta.call, delta.arguments, delta.id, delta.name, piece.notes)

    def _note(self, event: TokenEvent, *, offset: int) -> TokenText | None:
        if event.logprobs is None:
            return None
        top = tuple(self._token_text(alternative, logprob) for alternative, logprob in event.logprobs.top)
        return replace(self._token_text(event.token_id, event.logprobs.logprob), top=top, offset=offset)

    def _token_text(self, token_id: int, logprob: float) -> TokenText:
        data = self._token_bytes(token_id)
        return TokenText(data.decode(errors="replace"), logprob, tuple(data))
