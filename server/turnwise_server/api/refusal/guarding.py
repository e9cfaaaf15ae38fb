"""Puts a reply behind the refusal layer: who may override it, whose system messages are trusted, how it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Mapping
from contextlib import suppress
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
from turnwise_server.chat.refusal.policy_stages import Override
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.texts import content_of
from turnwise_server.chat.turn import PreparedTurn, TextDelta, Turn, TurnEvent, TurnRequest
from turnwise_server.moderation.audit.record import OverrideUse
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.request_guard import RequestGuard

REASON_HEADER = "x-safety-reason"
MAX_REASON_CHARS = 500


ReplyEvent = TurnEvent | Refused
"""What a reply is made of, as its client may see it."""


@dataclass(frozen=True, slots=True)
class GuardedReply:
    """A reply behind the refusal layer."""

    turn: GuardedTurn
    guard: RequestGuard
    manner: Manner
    override: OverrideUse | None = None
    """By what right the request passes, should it need one."""
    user: str = ""
    """The client's `safety_identifier` or `user`; "" if it sent none."""

    async def events(self, prepared: PreparedTurn) -> AsyncIterator[ReplyEvent]:
        """Yield the events of the reply, with a caution before it where the question asks for one.

        Raises:
            ModerationUnavailableError: what may not be shown unchecked could not be checked.
            EngineDeadError: the engine ended before the reply did.
        """
        texts: dict[int, str] = {}
        shown: set[int] = set()
        async for event in self.turn:
            if isinstance(event, Blocked):
                texts.pop(event.index, None)
                yield self.manner.refused(event, retracts=event.index in shown)
                continue
            shown.add(event.index)
            if isinstance(event, TextDelta):
                if event.index not in texts and (preface := self._preface(prepared)):
                    texts[event.index] = preface
                    yield TextDelta(event.index, preface)
                texts[event.index] = texts.get(event.index, "") + event.text
            yield event
        # What one request may say by an override, or because nothing could check it, others may not.
        if self.override is None and not self.is_unchecked:
            for text in texts.values():
                self.guard.layer.vouch(text)

    @property
    def is_unchecked(self) -> bool:
        """Whether something was shown that could not be checked."""
        return self.turn.input_verdict.is_unchecked or any(each.is_unchecked for each in self.turn.audits)

    def _preface(self, prepared: PreparedTurn) -> str:
        """Return what the reply begins with before the model's own words; "" for nothing, as where these are JSON."""
        verdict = self.turn.input_verdict
        is_text = prepared.begins_message and not prepared.has_form
        if verdict.action != "caution" or verdict.category is None or not is_text:
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
    user: str,
    blocks: Container[Stage],
) -> GuardedReply:
    """Return the reply `turn` behind the layer; the check of what the client sent begins at once."""
    policy = layer.policy
    override = override_of(policy.override, key, headers.get(REASON_HEADER, ""))
    guard = RequestGuard(
        layer,
        prepared.messages,
        prepared.tools,
        _begun(prepared),
        is_trusted=key is not None and TRUSTED in key.scopes,
        exempt=layer.overridable if override else (),
        blocks=blocks,
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
    return GuardedReply(guarded, guard, manner, override, user)


def _begun(prepared: PreparedTurn) -> list[str]:
    """Return what each choice goes on from; nothing where they begin messages."""
    if not prepared.goes_on:
        return []
    last = prepared.messages[-len(prepared.prompts) :]
    return [content_of(message) for message in last for _ in range(prepared.n)]


def override_of(rule: Override, key: KeyRecord | None, reason: str) -> OverrideUse | None:
    """Return by what right a request may be answered against the policy: none, unless its key may and it says why."""
    scopes = sorted(key.scopes.intersection(rule.allow_scopes)) if key else []
    with suppress(UnicodeDecodeError):  # headers are read as Latin-1, and written as UTF-8 by most
        reason = reason.encode("latin-1").decode("utf-8")
    reason = reason.strip()[:MAX_REASON_CHARS]
    if not scopes or (rule.require_reason and not reason):
        return None
    return OverrideUse(scopes[0], reason or None)
