"""The way in for every request that generates: admitted, read, its model held, then queued in the engine."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from itertools import islice

from starlette.requests import Request

from turnwise_server.api.errors import shorten
from turnwise_server.api.gates.body import read_json_object
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.refusal.guarding import guard_reply, shown_to_model
from turnwise_server.api.reply import Reply
from turnwise_server.api.services import Services, services_of
from turnwise_server.api.telemetry.request_log import RequestRecord, record_of
from turnwise_server.api.validation import RequestModel, unknown_fields
from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.chat.turn import PreparedTurn, TurnRequest
from turnwise_server.errors import EngineError, RequestError
from turnwise_server.moderation.layer import RefusalLayer

MAX_NAMED_PARAMS = 16
"""How many ignored parameters the reply names."""

_HEADER_SAFE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that was let in and whose body is a JSON object. What it asks for is not looked at yet."""

    request: Request
    services: Services
    record: RequestRecord
    body: dict[str, object]
    layer: RefusalLayer | None = None
    """What the reply is held to; None where nothing is checked."""

    @classmethod
    async def of(cls, request: Request, *, generates: bool = True) -> Admission:
        """Let a request in and read its body; one that `generates` only while there is room for a reply.

        Raises:
            ApiError: the server shuts down, or the body cannot be read.
            QueueFullError: no model could take the request, whatever is in it.
            EngineDeadError: no engine is running.
            ClientDisconnect: the client went away before the body was complete.
        """
        services = services_of(request)
        record = record_of(request.scope)
        services.lifecycle.require_open()
        if generates:
            _require_room(services.models, record.key_id)
        body = await read_json_object(request, timeout_s=services.settings.request_timeout_s)
        layer = None
        if generates and services.enforcement is not None:
            layer = record.held.enter_context(services.enforcement.held())
        return cls(request, services, record, body, layer)

    def ignored_params(self, model: type[RequestModel]) -> list[str]:
        """Return the parameters of the body that `model` does not know.

        Raises:
            RequestError: there is one, and the server is set to be strict.
        """
        names = unknown_fields(model, self.body)
        if names and self.services.settings.strict_params:
            name = shorten(names[0])
            raise RequestError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        return names

    def hold_model(self, name: str | None, *, streams: bool = False) -> ServedModel:
        """Find the model that the request names and keep it until the request ends. Safe in any thread.

        Raises:
            ApiError: 404 model_not_found; 400 if the request had to name one.
        """
        model = self.record.held.enter_context(self.services.models.held(name))
        self.record.facts.update(model=model.name, stream=streams)
        return model

    def prepare(self, model: ServedModel, turn: TurnRequest) -> PreparedTurn:
        """Prepare a reply to a conversation, of which the model reads what it may. Safe in any thread.

        Raises:
            RequestError: the messages or parameters cannot be served.
            ContextLengthError: the conversation does not fit, and truncation may not or cannot help.
        """
        return model.chat.prepare(turn if self.layer is None else shown_to_model(self.layer, turn))

    async def start(
        self, model: ServedModel, prepared: PreparedTurn, *, blocks: Container[Stage] = ()
    ) -> Reply:
        """Queue a prepared reply in the engine; `blocks` are the stages at which all that is flagged is refused.

        Raises:
            ApiError: the server shuts down.
            RateLimitError: its key may not use so many tokens now.
            QueueFullError: too much is waiting.
            EngineDeadError: the engine is not running.
            ModerationUnavailableError: what will be decided could not be recorded.
        """
        most_tokens = prepared.prompt_tokens + prepared.choices * prepared.max_tokens
        await self.record.allowance.reserve(most_tokens)
        self.services.lifecycle.require_open()
        if self.services.enforcement is not None:
            self.services.enforcement.require_record()
        turn = model.chat.start(prepared)
        if self.layer is None:
            self.record.headers["x-moderation"] = "off"
            return Reply(self.services, self.record, model, prepared, turn)
        guarded = guard_reply(
            self.layer,
            model.chat,
            prepared,
            turn,
            key=self.record.key,
            headers=self.request.headers,
            user=self._user(),
            blocks=blocks,
        )
        return Reply(self.services, self.record, model, prepared, guarded.turn, guarded)

    def _user(self) -> str:
        """Return what the client calls its user; the routes have checked that it is a text."""
        named = (self.body.get(name) for name in ("safety_identifier", "user"))
        return next((name for name in named if isinstance(name, str) and name), "")


def _require_room(models: Iterable[ServedModel], tenant: str) -> None:
    """Refuse before any work is done what no model could take, whatever it asks for.

    Raises:
        QueueFullError: too much is waiting in front of every model.
        EngineDeadError: no engine is running.
    """
    refusals: list[EngineError] = []
    for model in models:
        try:
            model.engine.require_room(tenant)
        except EngineError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]


def reply_headers(prepared: PreparedTurn, ignored_params: Iterable[str] = ()) -> dict[str, str]:
    """Say in headers what was not done as asked."""
    headers = ignored_params_header(ignored_params)
    if prepared.dropped_messages:
        headers["x-context-truncated"] = str(prepared.dropped_messages)
    return headers


def ignored_params_header(ignored_params: Iterable[str]) -> dict[str, str]:
    """Name what was ignored, if anything was."""
    # Names come from the client: only those that are safe in a header are repeated.
    safe = (name for name in ignored_params if _HEADER_SAFE.fullmatch(name))
    names = list(islice(safe, MAX_NAMED_PARAMS))
    return {"x-ignored-params": ", ".join(names)} if names else {}
