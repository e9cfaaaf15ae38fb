"""POST /v1/tokenize, /v1/detokenize and /v1/apply-template: what the model would read, without asking it anything.

Text of people never becomes a control token here either: the ids are those that a completion would use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from turnwise_server.api.admission import Admission, ignored_params_header
from turnwise_server.api.chat_completions.request import client_messages
from turnwise_server.api.openapi import describe_errors, describe_json_body
from turnwise_server.api.tokenization.request import (
    ApplyTemplateRequest,
    DetokenizeRequest,
    TokenizeRequest,
    parse_apply_template_request,
    parse_tokenize_request,
)
from turnwise_server.api.validation import RequestModel, validate
from turnwise_server.api.wire import encode_json

router = APIRouter()

_ERRORS = describe_errors(400, 401, 403, 404, 408, 413, 415, 500, 503)


class TokenizedPrompt(BaseModel):
    """Token ids, and how many the model takes."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None
    """The entries of the vocabulary, if they were asked for."""


class PromptText(BaseModel):
    """A text that the model reads."""

    prompt: str


@router.post(
    "/v1/tokenize",
    response_model=TokenizedPrompt,
    responses=_ERRORS,
    openapi_extra=describe_json_body(TokenizeRequest),
)
async def tokenize(request: Request) -> Response:
    """Return the token ids of a text, or of messages in the model's chat template."""
    return await _answer(request, TokenizeRequest, _tokenized)


@router.post(
    "/v1/detokenize",
    response_model=PromptText,
    responses=_ERRORS,
    openapi_extra=describe_json_body(DetokenizeRequest),
)
async def detokenize(request: Request) -> Response:
    """Return the text of token ids, control tokens written out."""
    return await _answer(request, DetokenizeRequest, _detokenized)


@router.post(
    "/v1/apply-template",
    response_model=PromptText,
    responses=_ERRORS,
    openapi_extra=describe_json_body(ApplyTemplateRequest),
)
async def apply_template(request: Request) -> Response:
    """Return messages as the model's chat template writes them."""
    return await _answer(request, ApplyTemplateRequest, _rendered)


def _tokenized(admission: Admission) -> TokenizedPrompt:
    request = parse_tokenize_request(admission.body, max_messages=admission.services.settings.max_messages)
    chat = admission.hold_model(request.model).chat
    if request.prompt is None:
        ids = chat.prompts.render(client_messages(request.messages or ()), request.end, request.offered)
    else:
        ids = chat.prompts.encode(request.prompt, add_special_tokens=request.add_special_tokens is not False)
    return TokenizedPrompt(
        count=len(ids),
        max_model_len=chat.context_length,
        tokens=list(ids),
        token_strs=chat.prompts.plain.tokens(ids) if request.return_token_strs else None,
    )


def _detokenized(admission: Admission) -> PromptText:
    request = validate(DetokenizeRequest, admission.body)
    chat = admission.hold_model(request.model).chat
    return PromptText(prompt=chat.prompts.plain.decode(request.tokens))


def _rendered(admission: Admission) -> PromptText:
    request = parse_apply_template_request(
        admission.body, max_messages=admission.services.settings.max_messages
    )
    chat = admission.hold_model(request.model).chat
    return PromptText(
        prompt=chat.prompts.render_text(client_messages(request.messages), request.end, request.offered)
    )


async def _answer(
    request: Request, model: type[RequestModel], work: Callable[[Admission], BaseModel]
) -> Response:
    """Do the work in a thread: texts may be megabytes long."""
    admission = await Admission.of(request, generates=False)
    headers = ignored_params_header(admission.ignored_params(model))
    body = await asyncio.to_thread(lambda: encode_json(work(admission).model_dump()))
    return Response(body, media_type="application/json", headers=headers)
