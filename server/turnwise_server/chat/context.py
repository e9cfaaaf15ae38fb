"""Decides which turns to leave out when a conversation is longer than the model's context. Pure.

What is dropped depends on the conversation alone, and in coarse steps: while a chat grows turn by turn, the kept part
begins at the same message for many turns, so the engine's prefix cache keeps hitting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from turnwise_server.chat.messages import Conversation, Message
from turnwise_server.errors import ContextLengthError

STEP_SHARE = 4
"""Turns are dropped in steps of 1/4 of the window."""

RESERVE_SHARE = 4
"""Truncation leaves room for a reply of up to 1/4 of the window."""


@dataclass(frozen=True, slots=True)
class Window:
    """The model's context and how much of it the reply may want, in tokens."""

    context_length: int
    max_tokens: int

    @property
    def prompt_limit(self) -> int:
        """The longest prompt that truncation aims for: it leaves room for the reply."""
        return self.context_length - max(1, min(self.max_tokens, self.context_length // RESERVE_SHARE))

    @property
    def hard_limit(self) -> int:
        """The longest prompt that can be served at all: one token must remain to be generated."""
        return self.context_length - 1


@dataclass(frozen=True, slots=True)
class Fit:
    """What was kept, and how many of the client's messages were left out."""

    conversation: Conversation
    prompt_ids: tuple[int, ...]
    dropped_messages: int


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """How to count, from dear to cheap: exactly, by turn, and no more than surely there are."""

    render: Callable[[Conversation], tuple[int, ...]]
    """The prompt's token ids."""
    turn: Callable[[Message], int]
    """About how many tokens a turn takes."""
    rest: Callable[[Conversation], int]
    """About how many tokens what is never dropped takes: the system text and the tools."""
    at_least: Callable[[Conversation], int]
    """A number that the prompt's tokens cannot fall below, without tokenising."""


def fit(conversation: Conversation, window: Window, counts: TokenCounts, *, truncate: bool) -> Fit:
    """Return the conversation if it fits, else (with `truncate`) without its oldest exchanges.

    An exchange is a user turn and what follows it up to the next one, so that calls and their results stay together;
    a leading assistant turn counts as one. The system text, the tools and the last exchange are never dropped.
    Estimates choose the step and refuse the hopeless before they are tokenised; rendering has the last word on whether
    the prompt fits.

    Raises:
        ContextLengthError: what may not be dropped does not fit.
    """
    exchanges = split_exchanges(conversation.turns)
    must_stay = replace(conversation, turns=exchanges[-1] if exchanges else ()) if truncate else conversation
    least = counts.at_least(must_stay)
    if least > window.hard_limit:
        raise ContextLengthError(
            context_length=window.context_length, prompt_tokens=least, is_lower_bound=True
        )
    if truncate and counts.at_least(conversation) > window.prompt_limit:
        return _drop_oldest(conversation, window, counts)
    prompt_ids = counts.render(conversation)
    if len(prompt_ids) <= (window.prompt_limit if truncate else window.hard_limit):
        return Fit(conversation, prompt_ids, 0)
    if not truncate:
        raise ContextLengthError(context_length=window.context_length, prompt_tokens=len(prompt_ids))
    return _drop_oldest(conversation, window, counts)


def _drop_oldest(conversation: Conversation, window: Window, counts: TokenCounts) -> Fit:
    exchanges = split_exchanges(conversation.turns) or [()]
    costs = [sum(map(counts.turn, exchange)) for exchange in exchanges]
    excess = max(1, counts.rest(conversation) + sum(costs) - window.prompt_limit)
    first = _first_kept(costs, excess, step=max(1, window.context_length // STEP_SHARE))
    while True:
        is_last = first == len(exchanges) - 1
        kept = replace(conversation, turns=tuple(turn for exchange in exchanges[first:] for turn in exchange))
        prompt_ids = counts.render(kept)
        if len(prompt_ids) <= (window.hard_limit if is_last else window.prompt_limit):
            dropped = sum(turn.sources for exchange in exchanges[:first] for turn in exchange)
            return Fit(kept, prompt_ids, dropped)
        if is_last:
            raise ContextLengthError(context_length=window.context_length, prompt_tokens=len(prompt_ids))
        first += 1


def split_exchanges(turns: tuple[Message, ...]) -> list[tuple[Message, ...]]:
    """Cut turns before every user turn; joined again they are the same turns."""
    starts = [index for index, turn in enumerate(turns) if turn.role == "user" or index == 0]
    ends = [*starts, len(turns)][1:]
    return [turns[start:end] for start, end in zip(starts, ends, strict=True)]


def _first_kept(costs: list[int], excess: int, *, step: int) -> int:
    """Index of the first exchange to keep: the dropped ones reach the next multiple of `step` above `excess`."""
    goal = -(-excess // step) * step
    dropped = 0
    for index, cost in enumerate(costs[:-1]):
        if dropped >= goal:
            return index
        dropped += cost
    return len(costs) - 1
