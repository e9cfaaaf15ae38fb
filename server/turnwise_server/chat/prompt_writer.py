"""Writes conversations as prompts of one model: in its template, cut to fit, counted. Safe in any thread.

It knows what a prompt is made of; how a reply to it is sampled and started is the chat model's business.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

from transformers import PreTrainedTokenizerFast

from turnwise_server.chat import context
from turnwise_server.chat.call_plan import CallPlan, plan_calls
from turnwise_server.chat.messages import ClientMessage, Conversation, Message, normalise
from turnwise_server.chat.plain_text import PlainText
from turnwise_server.chat.template import ChatTemplate, PromptEnd
from turnwise_server.chat.tools import ToolUse
from turnwise_server.errors import ContextLengthError, RequestError

NO_TOOLS = ToolUse()

MAX_COUNTED_CONTEXTS = 8
"""Texts are counted up to this many times the context: enough to say by how much they are too long."""

MAX_CACHED_CHARACTERS = 16_384
"""Texts that are longer are counted anew, so that what is remembered stays small."""

_TURN_OVERHEAD = 8
"""About how many tokens a template writes around a turn; only steers how much truncation drops at once."""


class PromptWriter:
    """The tokenizer and the template of one model."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        source: str,
        vocab_size: int,
        context_length: int,
        takes_grammars: bool,
    ) -> None:
        """Probe the template of the tokenizer from the model directory `source`.

        Raises:
            CheckpointError: there is no template, or it cannot render a single user message.
        """
        self.plain = PlainText(tokenizer, vocab_size=vocab_size)
        self._template = ChatTemplate(tokenizer, source=source)
        self._context_length = context_length
        self._takes_grammars = takes_grammars
        # Encoding with and without control tokens is a mode of the tokenizer, so two threads must not share a moment.
        self._lock = threading.Lock()
        self._remembered_tokens = lru_cache(maxsize=4096)(self._count_tokens)
        self.end_of_turn_id = self._template.end_of_turn_id()
        """The control token that the template writes after a reply, if it writes one."""

    def plan_calls(self, use: ToolUse, answer: str | None = None) -> CallPlan | None:
        """Decide how the reply may call tools; without calls it may be held to the grammar `answer`.

        Raises:
            RequestError: the template does not know tools, or calls cannot be held to their schemas.
        """
        traits = self._template.traits.tools
        if use.tools and traits is None:
            raise RequestError(
                "Unsupported parameter: 'tools' is not supported with this model: its chat template does not know "
                "tools.",
                param="tools",
                code="unsupported_parameter",
            )
        if traits is None:
            return None
        return plan_calls(
            use,
            traits.form,
            self._template.call_tokens,
            answer=answer,
            takes_grammars=self._takes_grammars,
        )

    def fit(
        self,
        messages: Sequence[ClientMessage],
        end: PromptEnd,
        tools: ToolUse,
        calls: CallPlan | None,
        *,
        max_tokens: int,
        truncate: bool,
    ) -> context.Fit:
        """Return the prompt of messages, with `truncate` without the oldest ones if it must be.

        Raises:
            RequestError: the messages cannot be rendered.
            ContextLengthError: the conversation does not fit, and truncation may not or cannot help.
        """
        counts = context.TokenCounts(
            partial(self._template.render, end=end),
            self._turn_tokens,
            self._rest_tokens,
            partial(self._least_tokens, end=end),
        )
        conversation = self._conversation(messages, end, tools, calls)
        with self._lock:
            window = context.Window(self._context_length, max_tokens)
            return context.fit(conversation, window, counts, truncate=truncate)

    def render(
        self, messages: Sequence[ClientMessage], end: PromptEnd, tools: ToolUse = NO_TOOLS
    ) -> tuple[int, ...]:
        """Return the token ids of messages in the template, however long they are. Safe to call from any thread.

        Raises:
            RequestError: the messages cannot be rendered.
            ContextLengthError: they are so long that counting their tokens would be a waste.
        """
        conversation = self._conversation(messages, end, tools, self.plan_calls(tools))
        self._require_countable(self._least_tokens(conversation, end), param="messages")
        with self._lock:
            return self._template.render(conversation, end)

    def encode(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        """Return the token ids of a text without the template; see `PlainText.encode`.

        Raises:
            ContextLengthError: it is so long that counting its tokens would be a waste.
        """
        self._require_countable(self.plain.at_least(text), param="prompt")
        return self.plain.encode(text, add_special_tokens=add_special_tokens)

    def render_text(
        self, messages: Sequence[ClientMessage], end: PromptEnd, tools: ToolUse = NO_TOOLS
    ) -> str:
        """Return messages as the template writes them. Control tokens in the messages look like the template's own.

        Raises:
            RequestError: the messages cannot be rendered.
        """
        conversation = self._conversation(messages, end, tools, self.plan_calls(tools))
        with self._lock:
            return self._template.render_text(conversation, end)

    def _require_countable(self, least: int, *, param: str) -> None:
        if least > MAX_COUNTED_CONTEXTS * self._context_length:
            raise ContextLengthError(
                context_length=self._context_length, prompt_tokens=least, is_lower_bound=True, param=param
            )

    def _conversation(
        self, messages: Sequence[ClientMessage], end: PromptEnd, tools: ToolUse, calls: CallPlan | None
    ) -> Conversation:
        """Return the normal form; the model hears of tools if it may call one."""
        if end is PromptEnd.OPEN and messages and messages[-1].role != "assistant":
            raise RequestError(
                "Only a message of the assistant can be continued, and the last message is none.",
                param=f"messages[{len(messages) - 1}].role",
                code="invalid_value",
            )
        if end is PromptEnd.OPEN and messages and messages[-1].tool_calls:
            raise RequestError(
                "A message with tool calls cannot be continued.",
                param=f"messages[{len(messages) - 1}].tool_calls",
                code="invalid_value",
            )
        traits = self._template.traits
        conversation = normalise(
            messages, keep_names=traits.writes_names, knows_tools=traits.tools is not None
        )
        return replace(conversation, tools=tools.tools if calls else ())

    def _turn_tokens(self, turn: Message) -> int:
        calls = sum(self._content_tokens(call.arguments) + _TURN_OVERHEAD for call in turn.tool_calls)
        return self._content_tokens(turn.content) + calls + _TURN_OVERHEAD

    def _rest_tokens(self, conversation: Conversation) -> int:
        tools = (json.dumps(dict(tool.parameters)) + tool.description for tool in conversation.tools)
        return sum(
            self._content_tokens(text) + _TURN_OVERHEAD for text in (conversation.system or "", *tools)
        )

    def _least_tokens(self, conversation: Conversation, end: PromptEnd) -> int:
        """What no tokenisation can fall below, at a fraction of its cost: megabytes are refused in milliseconds.

        Templates may trim texts and write schemas and arguments in their own way. Where that could matter, what the
        template makes of them counts.
        """
        system, tools, turns = conversation.system or "", conversation.tools, conversation.turns
        texts = (system, *(tool.description for tool in tools), *(turn.content for turn in turns))
        least = self.plain.at_least(*(text.strip() for text in texts))
        schemas = (json.dumps(dict(tool.parameters)) for tool in tools)
        arguments = (call.arguments for turn in turns for call in turn.tool_calls)
        if least <= self._context_length < self.plain.at_least(*texts, *schemas, *arguments):
            return self.plain.at_least(self._template.render_text(conversation, end))
        return least

    def _content_tokens(self, text: str) -> int:
        least = self.plain.at_least(text)
        if least > self._context_length:
            return least  # It is dropped whatever it comes to.
        return (
            self._remembered_tokens(text) if len(text) <= MAX_CACHED_CHARACTERS else self._count_tokens(text)
        )

    def _count_tokens(self, text: str) -> int:
        return len(self.plain.encode(text))
