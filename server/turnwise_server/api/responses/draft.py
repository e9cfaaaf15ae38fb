"""A response before anything has happened: its identity and the settings that it is made with."""

from __future__ import annotations

from turnwise_server.api.admission import Admission
from turnwise_server.api.models.served import ServedModel
from turnwise_server.api.responses.request import ResponseRequest
from turnwise_server.api.responses.tools import shown_choice, shown_format, shown_tool
from turnwise_server.api.responses.wire import InputTokensDetails, ModelResponse, ResponseUsage
from turnwise_server.chat.refusal.guarded_turn import GuardedTurn
from turnwise_server.chat.turn import PreparedTurn, Turn


def draft_response(
    request: ResponseRequest, admission: Admission, model: ServedModel, prepared: PreparedTurn
) -> ModelResponse:
    """Return the response that is to be written."""
    text, reasoning = request.text, request.reasoning
    sampling = prepared.sampling
    return ModelResponse(
        id=prepared.id,
        created_at=admission.record.created,
        status="queued" if request.background else "in_progress",
        background=bool(request.background),
        frequency_penalty=sampling.frequency_penalty,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=model.name,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        presence_penalty=sampling.presence_penalty,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_retention=request.prompt_cache_retention,
        reasoning={
            "effort": reasoning and reasoning.effort,
            "summary": reasoning and (reasoning.summary or reasoning.generate_summary),
        },
        safety_identifier=request.safety_identifier,
        store=request.store is not False,
        temperature=sampling.temperature,
        text={
            "format": shown_format(text.format if text else None),
            "verbosity": (text and text.verbosity) or "medium",
        },
        tool_choice=shown_choice(request.tool_choice),
        tools=[shown_tool(tool) for tool in request.tools or ()],
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
        metadata=request.metadata or {},
    )


def response_usage(prepared: PreparedTurn, turn: Turn | GuardedTurn) -> ResponseUsage:
    """Count the tokens of a response that has ended."""
    return ResponseUsage(
        input_tokens=prepared.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=turn.cached_tokens, x_truncated_messages=prepared.dropped_messages or None
        ),
        output_tokens=turn.completion_tokens,
        total_tokens=prepared.prompt_tokens + turn.completion_tokens,
    )
