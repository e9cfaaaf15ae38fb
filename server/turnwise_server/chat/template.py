"""Turns a conversation into token ids with the checkpoint's own chat template.

Text from people never becomes a control token: the template's control tokens are written by the template alone.
What a template can and cannot do is probed once, when the model is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from turnwise_server.chat.call_form import ToolTraits, learn_tools
from turnwise_server.chat.messages import Conversation
from turnwise_server.chat.template_input import KeyMarker, template_message, template_tool, tool_conversation
from turnwise_server.errors import CheckpointError, RequestError

_SENTINEL = "zq7f3x"
TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a template can raise: its own refusals, and whatever Python does on values that it did not expect."""

_NAME_USE = re.compile(r"""message(\.name\b|\[\s*['"]name['"]\s*\])""")


class PromptEnd(Enum):
    """Where a rendered conversation ends."""

    REPLY = "reply"
    """Where the assistant's reply begins."""
    CLOSED = "closed"
    """After its last turn."""
    OPEN = "open"
    """Inside its last turn, which is the assistant's and goes on."""


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """What the checkpoint's template understands, found by rendering small conversations."""

    has_system_role: bool
    must_start_with_user: bool
    writes_names: bool
    tools: ToolTraits | None
    """What it does with tools; None if it does not know them."""


class ChatTemplate:
    """Renders conversations for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, source: str) -> None:
        """Probe the template of the tokenizer from the model directory `source`.

        Raises:
            CheckpointError: there is no template, or it cannot render a single user message.
        """
        if not tokenizer.chat_template:
            raise CheckpointError(
                f"{source} has no chat template: put a chat_template.jinja beside tokenizer.json, or serve a chat model"
            )
        self._tokenizer = tokenizer
        self._key_marker = KeyMarker(tokenizer.added_tokens_encoder)
        self.traits = self._probe(source)
        if self.traits.tools is not None and not self._keeps_tools_text():
            self.traits = replace(self.traits, tools=None)

    @property
    def call_tokens(self) -> dict[str, int]:
        """The control tokens that the template writes around tool calls, by their text."""
        if self.traits.tools is None:
            return {}
        wrapper = self.traits.tools.form.wrapper
        texts = (wrapper.list_begin, wrapper.begin, wrapper.separator, wrapper.end, wrapper.list_end)
        return {
            token.content: token_id
            for token_id, token in self._tokenizer.added_tokens_decoder.items()
            if token.special and any(token.content in text for text in texts)
        }

    def render(self, conversation: Conversation, end: PromptEnd = PromptEnd.REPLY) -> tuple[int, ...]:
        """Return the prompt's token ids.

        Raises:
            RequestError: the template refuses this conversation.
        """
        return tuple(self._apply(conversation, end, tokenize=True, sanitize_control_tokens=True))

    def render_text(self, conversation: Conversation, end: PromptEnd = PromptEnd.REPLY) -> str:
        """Return the prompt as text, where people's control tokens cannot be told from the template's.

        Raises:
            RequestError: the template refuses this conversation.
        """
        return str(self._apply(conversation, end, tokenize=False))

    def _apply(self, conversation: Conversation, end: PromptEnd, **options: bool) -> Any:
        messages = self._messages(conversation)
        tools = [template_tool(tool) for tool in conversation.tools]
        if options["tokenize"]:
            messages, tools = self._key_marker.mark(messages), self._key_marker.mark(tools)
        if end is PromptEnd.OPEN and not messages[-1]["content"].strip():
            # Nothing to go on from: white space at the end is what templates trim.
            messages, end = messages[:-1], PromptEnd.REPLY
        try:
            return self._tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                add_generation_prompt=end is PromptEnd.REPLY,
                continue_final_message=end is PromptEnd.OPEN,
                return_dict=False,
                **options,
            )
        except TEMPLATE_FAULTS as error:
            raise RequestError(
                f"The model's chat template cannot render these messages: {error}",
                param="messages",
                code="invalid_value",
            ) from error

    def end_of_turn_id(self) -> int | None:
        """Return the special token that the template writes after an assistant's reply, if it writes one.

        A checkpoint whose generation_config forgets this token never stops; stopping on it mends that.
        """
        turns = [{"role": "user", "content": _SENTINEL}, {"role": "assistant", "content": _SENTINEL * 2}]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError:
            return None
        tail = str(text).rpartition(_SENTINEL)[2]
        special = set(self._tokenizer.all_special_ids)
        ids = self._tokenizer.encode(tail, add_special_tokens=False)
        return next((token_id for token_id in ids if token_id in special), None)

    def _messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        """Fit the conversation to what the template can render: fold the system text, start with the user."""
        spelling = None if self.traits.tools is None else self.traits.tools.spelling
        messages = [template_message(turn, spelling) for turn in conversation.turns]
        folds = conversation.system is not None and not self.traits.has_system_role
        needs_user = self.traits.must_start_with_user or folds
        if needs_user and (not messages or messages[0]["role"] != "user"):
            messages.insert(0, {"role": "user", "content": ""})
        if conversation.system is None:
            return messages
        if folds:
            parts = (conversation.system, messages[0]["content"])
            messages[0] = messages[0] | {"content": "\n\n".join(part for part in parts if part)}
            return messages
        return [{"role": "system", "content": conversation.system}, *messages]

    def _probe(self, source: str) -> TemplateTraits:
        user, assistant, system = (
            {"role": role, "content": f"{_SENTINEL} {role}"} for role in ("user", "assistant", "system")
        )
        if self._try_render([user]) is None:
            raise CheckpointError(
                f"The chat template of {source} cannot render a user message: repair its chat_template.jinja"
            )
        with_system = self._try_render([system, user])
        starts_with_assistant = self._try_render([assistant, user])
        template = str(self._tokenizer.chat_template)
        return TemplateTraits(
            has_system_role=with_system is not None and str(system["content"]) in with_system,
            must_start_with_user=starts_with_assistant is None,
            writes_names=bool(_NAME_USE.search(template)),
            tools=learn_tools(self._try_render),
        )

    def _keeps_tools_text(self) -> bool:
        """Whether text in tools, calls and results stays text, which a template that escapes it may break."""
        special = set(self._tokenizer.all_special_ids)

        def control_tokens(word: str) -> int:
            return sum(token_id in special for token_id in self.render(tool_conversation(word)))

        try:
            return control_tokens("".join(self._tokenizer.all_special_tokens)) == control_tokens(_SENTINEL)
        except RequestError:
            return False

    def _try_render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        is_prompt: bool = True,
    ) -> str | None:
        """Render to text, or None if the template raises on these messages (or fails in any way jinja can)."""
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=is_prompt,
                )
            )
        except TEMPLATE_FAULTS:
            return None
