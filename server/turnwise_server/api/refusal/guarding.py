"""Puts a reply behind the refusal layer: who may override it, whose system messages are trusted, how it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping
from dataclasses import dataclass, replace
from functools import partial

from turnwise_server.api.refusal.refused import Manner, Refused
from turnwise_server.auth import TRUSTED, KeyRecord
from turnwise_server.chat.model import ChatModel
from turnwise_server.chat.refusal.declined import withhold
from turnwise_server.chat.refusal.guarded_choice import Blocked
from turnwise_server.chat.refusal.guarded_turn import Guard, GuardedTurn
from turnwise_server.chat.refusal.hold_back import HoldBackRule
from turnwise_server.chat.refusal.leak import plant
from turnwise_server.chat.turn import PreparedTurn, TextDelta, Turn, TurnEvent, TurnRequest
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.request_guard import RequestGuard

REASON_HEADER = "x-safety-reason"


ReplyEvent = TurnEvent | Refused
"""What a reply is made of, as its client may see it."""


@dataclass(frozen=True, slots=True)
class GuardedReply:
    """A reply behind the refusal layer."""

    turn: GuardedTurn
    guard: RequestGuard
    manner: Manner

    async def events(self, prepared: PreparedTurn) -> AsyncIterator[ReplyEvent]:
        """Yield the events of the reply, with a caution before it where the question asks for one.

        Raises:
            ModerationUnavailableError: what may not be shown unchecked could not be checked.
            EngineDeadError: the engine ended before the reply did.
        """
        texts: dict[int, str] = {}
        async for event in self.turn:
            if isinstance(event, Blocked):
                texts.pop(event.index, None)
                yield self.manner.refused(event)
                continue
            if isinstance(event, TextDelta):
                if event.index not in texts and (preface := self._preface(prepared)):
                    texts[event.index] = preface
                    yield TextDelta(event.index, preface)
                texts[event.index] = texts.get(event.index, "") + event.text
            yield event
        for text in texts.values():
            self.guard.layer.vouch(text)

    @property
    def is_unchecked(self) -> bool:
        """Whether something was shown that could not be checked."""
        return self.turn.input_verdict.is_unchecked or any(each.is_unchecked for each in self.turn.audits)

    def _preface(self, prepared: PreparedTurn) -> str:
        """Return what the reply begins with before the model's own words; "" for nothing."""
        verdict = self.turn.input_verdict
        if verdict.action != "caution" or verdict.category is None or not prepared.begins_message:
            return ""
        return self.manner.caution(verdict.category) + "\n\n"


def shown_to_model(layer: RefusalLayer, turn: TurnRequest) -> TurnRequest:
    """Return a request as the model may read it: without what was declined, with the canary in its system text."""
    messages = withhold(turn.messages, layer.declined(turn.messages))
    return replace(turn, messages=plant(messages, layer.canary) if layer.canary else messages)


def guard_reply(
    layer: RefusalLayer,
    chat: ChatModel,
    prepared: PreparedTurn,
    turn: Turn,
    *,
    key: KeyRecord | None,
    headers: Mapping[str, str],
) -> GuardedReply:
    """Return the reply `turn` behind the layer; the check of what the client sent begins at once."""
    policy = layer.policy
    guard = RequestGuard(
        layer,
        prepared.messages,
        prepared.tools,
        is_trusted=key is not None and TRUSTED in key.scopes,
        exempt=exempt_categories(layer, key, headers.get(REASON_HEADER, "")),
    )
    output = policy.output
    rule = HoldBackRule(output.mode, output.stride_chars, output.hold_chars, output.context_chars)
    guarded = GuardedTurn(
        turn,
        Guard(guard.judge_output, rule, regenerate=partial(chat.start_again, prepared)),
        choices=prepared.choices,
        input_verdict=guard.judge_input(),
    )
    style = (key.refusal_style if key else None) or policy.refusal.style
    # A text where JSON is promised would break its reader; OpenAI puts it into the field as well.
    manner = Manner(layer, headers.get("accept-language", ""), "field" if prepared.has_form else style)
    return GuardedReply(guarded, guard, manner)


def exempt_categories(layer: RefusalLayer, key: KeyRecord | None, reason: str) -> Container[str]:
    """Return the categories that a request may override: none, unless its key may and it says why."""
    override = layer.policy.override
    if key is None or key.scopes.isdisjoint(override.allow_scopes):
        return ()
    if override.require_reason and not reason.strip():
        return ()
    return frozenset(category.id for category in layer.policy.categories) - frozenset(override.never)
