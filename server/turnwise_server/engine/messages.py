"""The messages between the server's process and the engine's: JSON with a length before it, one a step."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from turnwise_server.engine.base import (
    EngineInfo,
    FinishReason,
    GenerationRequest,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from turnwise_server.engine.updates import CoreCounters, StepResult, StepUpdate

Message = list[Any]
"""A name and its arguments, as JSON holds them."""

_HEADER = struct.Struct("!I")


def frame(message: Message) -> bytes:
    """Return a message as bytes, its length first."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _HEADER.pack(len(body)) + body


class FrameReader:
    """Puts messages together from bytes as they arrive."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes and yield the messages they complete."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            end = _HEADER.size + _HEADER.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            message: Message = json.loads(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield message


def encode_request(key: int, request: GenerationRequest) -> Message:
    """Return the message that submits a request."""
    params = asdict(request.sampling)
    params["logit_bias"] = list(request.sampling.logit_bias.items())
    params["stop_token_ids"] = sorted(request.sampling.stop_token_ids)
    return ["submit", key, request.id, list(request.prompt_ids), params, request.tenant]


def decode_request(message: Message) -> tuple[int, GenerationRequest]:
    """Return what `encode_request` was given."""
    _, key, request_id, prompt_ids, params, tenant = message
    params["logit_bias"] = dict(params["logit_bias"])
    params["stop_token_ids"] = frozenset(params["stop_token_ids"])
    return key, GenerationRequest(request_id, tuple(prompt_ids), SamplingParams(**params), tenant)


def encode_update(update: StepUpdate) -> Message:
    """Return the message that reports a step."""
    results = [_encode_result(result) for result in update.results]
    counters = update.counters
    totals = [counters.cached_prompt_tokens, counters.prompt_tokens, counters.generated_tokens]
    return ["step", update.started, results, [*totals, counters.kv_cache_usage], update.seconds]


def decode_update(message: Message) -> StepUpdate:
    """Return what `encode_update` was given."""
    _, started, results, counters, seconds = message
    return StepUpdate(tuple(started), tuple(map(_decode_result, results)), CoreCounters(*counters), seconds)


def encode_info(info: EngineInfo) -> Message:
    """Return the message that says the model is loaded."""
    return ["ready", asdict(info) | {"stop_token_ids": sorted(info.stop_token_ids)}]


def decode_info(message: Message) -> EngineInfo:
    """Return what `encode_info` was given."""
    fields = message[1]
    return EngineInfo(**fields | {"stop_token_ids": frozenset(fields["stop_token_ids"])})


def _encode_result(result: StepResult) -> Message:
    event = result.event
    if event is None:
        return [result.key, result.error, result.is_grammar_fault]
    encoded: Message = [result.key, event.token_id, event.finish_reason, event.cached_tokens]
    if event.logprobs:
        encoded += [event.logprobs.logprob, event.logprobs.top]
    return encoded


def _decode_result(encoded: Message) -> StepResult:
    if len(encoded) == 3:
        return StepResult(encoded[0], None, encoded[1], encoded[2])
    key, token_id, reason, cached_tokens, *scores = encoded
    logprobs = TokenLogprobs(scores[0], tuple((i, value) for i, value in scores[1])) if scores else None
    return StepResult(
        key, TokenEvent(token_id, FinishReason(reason) if reason else None, logprobs, cached_tokens)
    )
