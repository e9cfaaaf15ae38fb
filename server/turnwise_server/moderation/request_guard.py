"""Guards one request and its reply under the policy that was in force when it came."""

from __future__ import annotations

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from turnwise_server.chat.messages import SYSTEM_ROLES, ClientMessage
from turnwise_server.chat.refusal.leak import LeakDetector
from turnwise_server.chat.refusal.policy_texts import LEAK
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.refusal.texts import content_of, input_texts
from turnwise_server.chat.refusal.verdict import Place, Verdict
from turnwise_server.chat.tools import Tool
from turnwise_server.moderation.decide import decide
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.panel import Asked
from turnwise_server.moderation.readings import Reading, merge


@dataclass(eq=False)
class RequestGuard:
    """Judges what a client sent and what the model replies, and keeps what it found for the audit."""

    layer: RefusalLayer
    messages: tuple[ClientMessage, ...] = ()
    """The conversation that the model reads, as the client sent it."""
    tools: tuple[Tool, ...] = ()
    begun: Sequence[str] = ()
    """What each choice goes on from, in the client's words; empty where each begins a message."""
    is_trusted: bool = False
    """Whether the key vouches for its system messages."""
    exempt: Container[str] = ()
    """Categories that the request overrides."""
    blocks: Container[Stage] = ()
    """Stages at which the client wants all stopped that OpenAI has a name for; then the request overrides nothing."""
    asked: dict[Stage, list[Asked]] = field(default_factory=lambda: {"input": [], "output": []})
    """What was asked of detectors at each stage, in the order of their answers."""
    output_readings: dict[int, Reading] = field(default_factory=dict)
    """What detectors say of the reply so far, by choice."""
    input_reading: Reading | None = None
    """What they say of the request, once they have said it."""
    input_ms: float = 0.0
    """How long the reading of the request took, in milliseconds; 0 while there is none."""

    async def judge_input(self) -> Verdict:
        """Return the verdict on what the client sent.

        Raises:
            ModerationUnavailableError: it could not be checked, and may not pass unchecked.
        """
        began = time.perf_counter()
        texts = input_texts(
            self.messages,
            self.layer.policy.input,
            tools=self.tools,
            passed_over=self.layer.declined(self.messages),
            is_trusted=self.is_trusted,
        )
        self.input_reading = await self.layer.read_input(texts, self.asked["input"].append)
        self.input_ms = (time.perf_counter() - began) * 1000
        return self._decide("input", self.input_reading)

    async def judge_output(self, index: int, window: str, offset: int) -> Verdict:
        """Return the verdict on the window of choice `index` that ends at `offset`.

        Raises:
            ModerationUnavailableError: it could not be checked, and may not pass unchecked.
        """
        leaked = self._leaked(index, window, offset)
        if leaked.stops:
            return leaked
        (reading,) = await self.layer.read(
            [self._with_beginning(index, window, offset)],
            "output",
            self.asked["output"].append,
            question=self.question,
        )
        reading = reading.at("", index)
        self.output_readings[index] = merge((self.output_readings.get(index, Reading()), reading))
        verdict = self._decide("output", reading)
        if verdict.strength >= leaked.strength:
            return verdict
        return replace(leaked, scores=verdict.scores, is_unchecked=verdict.is_unchecked)

    def _leaked(self, index: int, window: str, offset: int) -> Verdict:
        """Return the verdict on a window by whether it gives the system text away."""
        if self._leak is None or not self._leak.is_leak(window):
            return Verdict()
        start = max(0, offset - len(window))
        return Verdict(self.layer.policy.leak.action, LEAK, place=Place(turn=index, start=start, end=offset))

    def _with_beginning(self, index: int, window: str, offset: int) -> str:
        """Return a window with what it goes on from, as far as a check sees: neither half of a word says what it is."""
        if not self.begun or offset > len(window):
            return window
        room = self.layer.policy.output.context_chars - len(window)
        return self.begun[index][-room:] + window if room > 0 else window

    def _decide(self, stage: Stage, reading: Reading) -> Verdict:
        blocks = stage in self.blocks
        exempt = () if blocks else self.exempt
        return decide(self.layer.policy, stage, reading, exempt=exempt, blocks_flagged=blocks)

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Everything that detectors said: of the request, and of each choice of the reply."""
        first = () if self.input_reading is None else (self.input_reading,)
        return (*first, *self.output_readings.values())

    @cached_property
    def question(self) -> str:
        """What the user said last."""
        said: Sequence[ClientMessage] = [each for each in self.messages if each.role == "user"]
        return content_of(said[-1]) if said else ""

    @cached_property
    def _leak(self) -> LeakDetector | None:
        """What finds the system text in a reply, if there is one."""
        system = [content_of(each) for each in self.messages if each.role in SYSTEM_ROLES]
        if not system:
            return None
        leak = self.layer.policy.leak
        users = [content_of(each) for each in self.messages if each.role == "user"]
        return LeakDetector(
            "\n".join(system),
            users,
            canary=self.layer.canary,
            ngram=leak.system_ngram,
            min_overlap=leak.min_overlap,
        )
