"""The bodies of /v1/tokenize, /v1/detokenize and /v1/apply-template, as vLLM's clients write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from turnwise_server.api.chat_completions.request import RequestMessage, check_message_count
from turnwise_server.api.chat_completions.tools import Tools, tool_use
from turnwise_server.api.prompt_end import prompt_end
from turnwise_server.api.sampling_request import ModelName, Unsupported
from turnwise_server.api.validation import RequestModel, Text, missing_parameter, validate
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.tools import ToolUse
from turnwise_server.errors import RequestError

Messages = Annotated[list[RequestMessage], Field(min_length=1, fail_fast=True)]

_NOT_BESIDE = {
    "prompt": ("messages", "tools", "add_generation_prompt", "continue_final_message"),
    "messages": ("add_special_tokens",),
}

TokenId = Annotated[int, Field(ge=0)]


class RenderingRequest(RequestModel):
    """How messages become a prompt."""

    model: ModelName | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: Tools | None = None
    chat_template: Unsupported = None

    @property
    def end(self) -> PromptEnd:
        """Where the prompt ends.

        Raises:
            RequestError: two ends are asked for.
        """
        return prompt_end(
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
        )

    @property
    def offered(self) -> ToolUse:
        """The tools that the prompt tells of.

        Raises:
            RequestError: two of them have one name.
        """
        return tool_use(self.tools, None, is_parallel=None)


class TokenizeRequest(RenderingRequest):
    """Either a text or messages."""

    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class ApplyTemplateRequest(RenderingRequest):
    """Messages to be rendered."""

    messages: Messages


class DetokenizeRequest(RequestModel):
    """Token ids."""

    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True)]


def parse_tokenize_request(body: Mapping[str, object], *, max_messages: int) -> TokenizeRequest:
    """Check everything about a request that can be checked without the model.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    check_message_count(body, max_messages)
    request = validate(TokenizeRequest, body)
    if request.prompt is None and request.messages is None:
        raise missing_parameter("prompt")
    present = "messages" if request.prompt is None else "prompt"
    for name in _NOT_BESIDE[present]:
        if body.get(name):
            raise RequestError(
                f"Invalid '{name}': it does not go with '{present}'.", param=name, code="invalid_value"
            )
    return request


def parse_apply_template_request(body: Mapping[str, object], *, max_messages: int) -> ApplyTemplateRequest:
    """Check everything about a request that can be checked without the model.

    Raises:
        RequestError: with OpenAI's message, code and param.
    """
    check_message_count(body, max_messages)
    return validate(ApplyTemplateRequest, body)
