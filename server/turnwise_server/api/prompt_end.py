"""Where a client wants its prompt to end: the two parameters for it that vLLM and its clients know."""

from __future__ import annotations

from turnwise_server.chat.template import PromptEnd
from turnwise_server.errors import RequestError


def prompt_end(*, add_generation_prompt: bool | None, continue_final_message: bool | None) -> PromptEnd:
    """Return where the prompt ends; by default where the assistant's reply begins.

    Raises:
        RequestError: both are asked for.
    """
    if continue_final_message and add_generation_prompt:
        raise RequestError(
            "'continue_final_message' goes on with the last message, 'add_generation_prompt' begins a new one: "
            "at most one of them can be true.",
            param="continue_final_message",
            code="invalid_value",
        )
    if continue_final_message:
        return PromptEnd.OPEN
    return PromptEnd.CLOSED if add_generation_prompt is False else PromptEnd.REPLY
