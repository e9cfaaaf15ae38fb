"""Keeps the refusal layer of the policy in force, through changes of the policy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from turnwise_server.chat.refusal.policy_file import LoadedPolicy
from turnwise_server.chat.refusal.policy_holder import PolicyHolder
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.log import describe_exception
from turnwise_server.moderation.audit.log import AuditLog
from turnwise_server.moderation.audit.record import AuditRecord
from turnwise_server.moderation.detector import Detector
from turnwise_server.moderation.layer import RefusalLayer
from turnwise_server.moderation.make_detector import make_detector

_log = structlog.get_logger()

POLL_S = 2.0
"""How long a changed policy file may stay unseen, in seconds; SIGHUP has it read at once."""


@dataclass(slots=True, eq=False)
class _InForce:
    """A layer, and how many requests are under it."""

    layer: RefusalLayer
    detectors: dict[str, Detector]
    """By what the policy says of them, so that the next policy can take over what stays the same."""
    users: int = 0


class Enforcement:
    """The layer in force, and those before it that requests are still under."""

    def __init__(
        self, audit: AuditLog | None = None, make: Callable[[DetectorRule], Detector] = make_detector
    ) -> None:
        """Begin without a policy; `enact` one before the first request.

        Decisions are recorded in `audit`. `make` loads a detector; it is called in any thread.
        """
        self._audit = audit
        self._make = make
        self._lock = threading.Lock()
        self._current: _InForce | None = None
        self._retired: list[_InForce] = []
        self._orphans: list[Detector] = []
        """Detectors of policies that did not come into force."""

    @property
    def layer(self) -> RefusalLayer:
        """The layer of requests that come now."""
        assert self._current is not None, "no policy was enacted"
        return self._current.layer

    def enact(self, loaded: LoadedPolicy) -> None:
        """Put a policy in force. It takes as long as loading its detectors; those that stay the same are kept.

        Raises:
            ConfigurationError: a detector cannot be loaded; nothing has changed.
        """
        before = self._current.detectors if self._current else {}
        made: dict[str, Detector] = {}
        try:
            for rule in loaded.policy.detectors:
                key = rule.model_dump_json()
                made[key] = before[key] if key in before else self._make(rule)
        except BaseException:
            self._orphans += [detector for key, detector in made.items() if key not in before]
            raise
        layer = RefusalLayer(loaded, {detector.id: detector for detector in made.values()})
        for stage, categories in layer.unguarded.items():
            _log.warning("categories_without_detector", stage=stage, categories=sorted(categories))
        with self._lock:
            if self._current is not None:
                self._retired.append(self._current)
            self._current = _InForce(layer, made)
        if self._audit is not None:
            self._audit.follow(loaded.policy.audit)

    @contextmanager
    def held(self) -> Iterator[RefusalLayer]:
        """Keep the layer of now alive inside the `with`, even if the policy changes meanwhile."""
        with self._lock:
            assert self._current is not None, "no policy was enacted"
            current = self._current
            current.users += 1
        try:
            yield current.layer
        finally:
            with self._lock:
                current.users -= 1

    @property
    def is_recorded(self) -> bool:
        """Whether decisions can be recorded now; also where no audit is kept."""
        return self._audit is None or self._audit.is_writable

    def require_record(self) -> None:
        """Refuse work whose decisions could not be recorded, unless the policy lets it go on.

        Raises:
            ModerationUnavailableError: nothing can be recorded now.
        """
        if self._audit is not None:
            self._audit.require_writable()

    def record(self, record: AuditRecord) -> None:
        """Record a decision, where an audit is kept."""
        if self._audit is not None:
            self._audit.append(record)

    async def tidy(self) -> None:
        """Close the detectors that no request needs any more."""
        with self._lock:
            unused = [each for each in self._retired if not each.users]
            self._retired = [each for each in self._retired if each.users]
            in_use = [each for each in (self._current, *self._retired) if each is not None]
            kept = {id(detector) for each in in_use for detector in each.detectors.values()}
            closing = {id(each): each for each in self._orphans}
            closing |= {id(detector): detector for each in unused for detector in each.detectors.values()}
            self._orphans = []
        for key in closing.keys() - kept:
            await closing[key].close()

    async def close(self) -> None:
        """Close every detector and the audit. No request is under the policy any more."""
        with self._lock:
            if self._current is not None:
                self._retired.append(self._current)
            self._current = None
            for each in self._retired:
                each.users = 0
        await self.tidy()
        if self._audit is not None:
            await asyncio.to_thread(self._audit.close)


async def follow_policy(
    holder: PolicyHolder, asked: asyncio.Event, enforcement: Enforcement | None, *, interval_s: float = POLL_S
) -> None:
    """Take changes of the policy's file into force until cancelled: when `asked`, or as they are seen."""
    while True:
        try:
            async with asyncio.timeout(interval_s):
                await asked.wait()
        except TimeoutError:
            pass
        must_read = asked.is_set()
        asked.clear()
        try:
            await asyncio.to_thread(holder.refresh, must_read=must_read)
        except Exception as error:  # noqa: BLE001 - a fault of one reload must not end those that come after it
            _log.error("unexpected_error", **describe_exception(error))
        if enforcement is not None:
            await enforcement.tidy()
