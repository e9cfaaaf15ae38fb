"""Decides what the next step computes: one prefill chunk at most, and one token for every sequence being decoded."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from turnwise_server.engine.kv_pool import KVPool
from turnwise_server.engine.prefix_cache import MIN_SHARED_TOKENS, common_prefix_length
from turnwise_server.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """The next `tokens` tokens of a sequence's prompt."""

    sequence: Sequence
    tokens: int

    @property
    def is_last(self) -> bool:
        """Say whether the prompt ends here."""
        return self.sequence.computed + self.tokens == self.sequence.prompt_length


@dataclass(frozen=True, slots=True)
class Schedule:
    """What one step computes."""

    prefill: tuple[Piece, ...]
    decode: tuple[Sequence, ...]
    started: tuple[int, ...]
    """Keys of the sequences that left the queue for this step."""

    @property
    def prefilling(self) -> list[Sequence]:
        """Return the sequences whose prompts are worked on."""
        return [piece.sequence for piece in self.prefill]


class Scheduler:
    """Admits waiting sequences: first of the tenant with the fewest running, among equals of the one whose turn was
    longest ago, and in order of arrival inside a tenant. So nobody waits behind another's whole queue.
    """

    def __init__(self, pool: KVPool, *, max_batch: int, prefill_chunk: int) -> None:
        self._pool = pool
        self._max_batch = max_batch
        self._prefill_chunk = prefill_chunk
        self._waiting: dict[str, deque[Sequence]] = {}
        self._turns: dict[str, int] = {}
        """When each tenant was admitted last, in admissions. There are as many tenants as keys: none is forgotten."""
        self._admissions = 0
        self._running: dict[int, Sequence] = {}
        self._prefilling: deque[Sequence] = deque()

    @property
    def waiting_count(self) -> int:
        """Return how many sequences have no memory yet."""
        return sum(len(queue) for queue in self._waiting.values())

    @property
    def running_count(self) -> int:
        """Return how many sequences hold memory."""
        return len(self._running)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.setdefault(sequence.request.tenant, deque()).append(sequence)

    def schedule(self) -> Schedule:
        """Choose the next step's work, and give memory to the sequences that begin with it."""
        before = set(self._running)
        pieces = self._fill_chunk()
        started = tuple(key for key in self._running if key not in before)
        return Schedule(prefill=tuple(pieces), decode=tuple(self._pool.decoding), started=started)

    def prefilled(self, sequence: Sequence) -> None:
        """Take note that a sequence's whole prompt is computed."""
        self._prefilling.remove(sequence)
        self._pool.start_decoding(sequence)

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Free a running sequence's memory; what it computed serves later prompts if `keep`."""
        del self._running[sequence.key]
        if not sequence.is_prefilled:
            self._prefilling.remove(sequence)
        self._pool.release(sequence, keep=keep)

    def cancel(self, key: int) -> None:
        """Forget a sequence, wherever it is; unknown ones have finished already."""
        if key in self._running:
            self.finish(self._running[key])
            return
        for tenant, queue in self._waiting.items():
            for sequence in queue:
                if sequence.key == key:
                    self._drop_waiting(tenant, sequence)
                    return

    def _fill_chunk(self) -> list[Piece]:
        pieces: list[Piece] = []
        room = self._prefill_chunk
        for sequence in self._prefilling:
            if room:
                pieces.append(self._piece(sequence, room))
                room -= pieces[-1].tokens
        while room and (candidate := self._next_candidate()):
            self._admit(candidate)
            pieces.append(self._piece(candidate, room))
            room -= pieces[-1].tokens
        return pieces

    def _piece(self, sequence: Sequence, room: int) -> Piece:
        return Piece(sequence, min(room, sequence.prompt_length - sequence.computed))

    def _next_candidate(self) -> Sequence | None:
        """Return who may start now, or None where the next in line has to wait."""
        if not self._waiting or len(self._running) >= self._max_batch:
            return None
        load: dict[str, int] = {}
        for sequence in self._running.values():
            load[sequence.request.tenant] = load.get(sequence.request.tenant, 0) + 1
        tenant = min(self._waiting, key=lambda name: (load.get(name, 0), self._turns.get(name, 0)))
        candidate = self._waiting[tenant][0]
        if not self._pool.can_admit(candidate) or self._shares_unfinished_prompt(candidate):
            return None
        return candidate

    def _shares_unfinished_prompt(self, candidate: Sequence) -> bool:
        """Say whether a prompt being prefilled will soon serve the candidate: n choices of one prompt cost one."""
        match = self._pool.match(candidate)
        cached = match.tokens if match else 0
        for other in self._prefilling:
            if other.request.tenant == candidate.request.tenant:
                limit = min(candidate.prompt_length - 1, other.prompt_length)
                if common_prefix_length(candidate.tokens, other.tokens, limit) >= cached + MIN_SHARED_TOKENS:
                    return True
        return False

    def _admit(self, sequence: Sequence) -> None:
        self._drop_waiting(sequence.request.tenant, sequence)
        self._admissions += 1
        self._turns[sequence.request.tenant] = self._admissions
        self._pool.admit(sequence)
        self._running[sequence.key] = sequence
        self._prefilling.append(sequence)

    def _drop_waiting(self, tenant: str, sequence: Sequence) -> None:
        self._waiting[tenant].remove(sequence)
        if not self._waiting[tenant]:
            del self._waiting[tenant]
