"""The chat model: a tokenizer and its template in front of an engine. Loaded once, shared by every request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerFast

from turnwise_server.chat import context
from turnwise_server.chat.call_plan import CallPlan, plan_calls
from turnwise_server.chat.checkpoint_files import GenerationDefaults, load_generation_defaults, load_tokenizer
from turnwise_server.chat.messages import ClientMessage, Conversation, Message, normalise
from turnwise_server.chat.plain_text import PlainText
from turnwise_server.chat.template import ChatTemplate, PromptEnd
from turnwise_server.chat.token_text import token_bytes
from turnwise_server.chat.tools import ToolUse
from turnwise_server.chat.turn import PreparedTurn, Turn, TurnRequest, seed_of_choice
from turnwise_server.engine.base import Engine, EngineInfo, Generation, GenerationRequest, SamplingParams
from turnwise_server.errors import ContextLengthError, RequestError

MAX_DEFAULT_TOKENS = 1024
"""A reply's length where the client names none; never endless, and always said as `length` when it cuts."""

NO_TOOLS = ToolUse()

MAX_COUNTED_CONTEXTS = 8
"""Messages are counted up to this many times the context: enough to say by how much they are too long."""

_TURN_OVERHEAD = 8
"""About how many tokens a template writes around a turn; only steers how much truncation drops at once."""


class ChatModel:
    """Prepares replies and starts them."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        engine: Engine,
        info: EngineInfo,
        *,
        defaults: GenerationDefaults,
        source: str,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, source=source)
        self._engine = engine
        self._defaults = defaults
        self._token_bytes = token_bytes(tokenizer)
        self._stop_token_ids = info.stop_token_ids | {
            token_id
            for token_id in (tokenizer.eos_token_id, self._template.end_of_turn_id())
            if token_id is not None
        }
        # Encoding with and without control tokens is a mode of the tokenizer, so two threads must not share a moment.
        self._tokenizer_lock = threading.Lock()
        self._content_tokens = lru_cache(maxsize=4096)(self._count_tokens)
        self.plain_text = PlainText(tokenizer, vocab_size=info.vocab_size)
        self.context_length = info.context_length
        self.vocab_size = info.vocab_size
        self._takes_grammars = info.takes_grammars
        self.default_max_tokens = min(MAX_DEFAULT_TOKENS, info.context_length)
        template = str(tokenizer.chat_template)
        self.fingerprint = hashlib.sha256(f"{info.fingerprint}\0{template}".encode()).hexdigest()
        """Changes whenever weights or template do: equal fingerprints answer a seed alike."""

    @classmethod
    def load(cls, model: str | Path, engine: Engine, info: EngineInfo) -> ChatModel:
        """Load tokenizer, template and generation defaults of the checkpoint that `engine` runs.

        Raises:
            CheckpointError: a file is missing or damaged; the message names it and the remedy.
        """
        tokenizer = load_tokenizer(str(model))
        defaults = load_generation_defaults(str(model))
        return cls(tokenizer, engine, info, defaults=defaults, source=str(model))

    def prepare(self, request: TurnRequest) -> PreparedTurn:
        """Normalise, truncate and tokenise. CPU work only; the engine is not touched. Safe to call from any thread.

        Raises:
            RequestError: the messages or parameters cannot be served.
            ContextLengthError: the conversation does not fit, and truncation may not or cannot help.
        """
        self._check_logit_bias(request)
        self._check_grammar(request)
        _check_end(request)
        calls = self._plan_calls(request.tools, request.grammar)
        wanted = self.default_max_tokens if request.max_tokens is None else request.max_tokens
        conversation = self._conversation(request.messages, request.end, request.tools, calls)
        counts = context.TokenCounts(
            partial(self._template.render, end=request.end),
            self._turn_tokens,
            self._rest_tokens,
            self._least_tokens,
        )
        with self._tokenizer_lock:
            window = context.Window(self.context_length, wanted)
            fit = context.fit(conversation, window, counts, truncate=request.truncation == "auto")
        return self._prepared(request, (fit.prompt_ids,), fit.dropped_messages, calls)

    def prepare_text(self, request: TurnRequest, prompts: Sequence[str | Sequence[int]]) -> PreparedTurn:
        """Tokenise prompts that go to the model as they are, without messages and template; see `prepare`.

        Raises:
            RequestError: the prompts or parameters cannot be served.
            ContextLengthError: a prompt does not fit. Nothing is left out of prompts.
        """
        self._check_logit_bias(request)
        ids = [self.plain_text.prompt(prompt, context_length=self.context_length) for prompt in prompts]
        return self._prepared(request, tuple(ids))

    def render(
        self, messages: Sequence[ClientMessage], end: PromptEnd, tools: ToolUse = NO_TOOLS
    ) -> tuple[int, ...]:
        """Return the token ids of messages in the template, however long they are. Safe to call from any thread.

        Raises:
            RequestError: the messages cannot be rendered.
            ContextLengthError: they are so long that counting their tokens would be a waste.
        """
        conversation = self._conversation(messages, end, tools, self._plan_calls(tools))
        least = self._least_tokens(conversation)
        if least > MAX_COUNTED_CONTEXTS * self.context_length:
            raise ContextLengthError(
                context_length=self.context_length, prompt_tokens=least, is_lower_bound=True
            )
        with self._tokenizer_lock:
            return self._template.render(conversation, end)

    def render_text(
        self, messages: Sequence[ClientMessage], end: PromptEnd, tools: ToolUse = NO_TOOLS
    ) -> str:
        """Return messages as the template writes them. Control tokens in the messages look like the template's own.

        Raises:
            RequestError: the messages cannot be rendered.
        """
        conversation = self._conversation(messages, end, tools, self._plan_calls(tools))
        with self._tokenizer_lock:
            return self._template.render_text(conversation, end)

    def start(self, prepared: PreparedTurn) -> Turn:
        """Queue every choice in the engine and return the reply to be.

        Raises:
            QueueFullError: the engine's queue has no room for all the choices; none is left behind in it.
            EngineDeadError: the engine is not running.
        """
        generations: list[Generation] = []
        with ExitStack() as undo:
            for index in range(prepared.choices):
                generation = self._engine.submit(self._choice_request(prepared, index))
                undo.callback(generation.cancel)
                generations.append(generation)
            undo.pop_all()
        return Turn(
            tuple(generations),
            tokenizer=self._tokenizer.backend_tokenizer,
            token_bytes=self._token_bytes,
            stop=prepared.stop,
            calls=prepared.calls,
        )

    def _choice_request(self, prepared: PreparedTurn, index: int) -> GenerationRequest:
        prompt_ids = prepared.prompts[index // prepared.n]
        sampling = replace(
            prepared.sampling,
            # As if its prompt had been sent alone.
            seed=seed_of_choice(prepared.sampling.seed, index % prepared.n),
            max_tokens=min(prepared.max_tokens, self.context_length - len(prompt_ids)),
        )
        return GenerationRequest(f"{prepared.id}-{index}", prompt_ids, sampling, prepared.tenant)

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

    def _plan_calls(self, use: ToolUse, answer: str | None = None) -> CallPlan | None:
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

    def _prepared(
        self,
        request: TurnRequest,
        prompts: tuple[tuple[int, ...], ...],
        dropped_messages: int = 0,
        calls: CallPlan | None = None,
    ) -> PreparedTurn:
        wanted = self.default_max_tokens if request.max_tokens is None else request.max_tokens
        room = self.context_length - min(map(len, prompts))
        grammar = calls.grammar if calls else request.grammar
        return PreparedTurn(
            id=request.id,
            tenant=request.tenant,
            prompts=prompts,
            sampling=self._sampling(request, grammar, max_tokens=min(wanted, room)),
            n=request.n,
            stop=request.stop,
            dropped_messages=dropped_messages,
            calls=calls,
        )

    def _sampling(self, request: TurnRequest, grammar: str | None, *, max_tokens: int) -> SamplingParams:
        defaults = self._defaults
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_or(request.temperature, defaults.temperature),
            top_p=_or(request.top_p, defaults.top_p),
            top_k=_or(request.top_k, defaults.top_k),
            min_p=request.min_p,
            seed=request.seed,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            repetition_penalty=_or(request.repetition_penalty, defaults.repetition_penalty),
            logit_bias=request.logit_bias,
            stop_token_ids=self._stop_token_ids,
            top_logprobs=request.top_logprobs,
            grammar=grammar,
        )

    def _check_grammar(self, request: TurnRequest) -> None:
        if request.grammar is not None and not self._takes_grammars:
            raise RequestError(
                "Unsupported value: the tokenizer of this model cannot hold a reply to a form; 'response_format' "
                "supports only {'type': 'text'} with it.",
                param="response_format",
                code="unsupported_value",
            )

    def _check_logit_bias(self, request: TurnRequest) -> None:
        for token_id in request.logit_bias:
            if not 0 <= token_id < self.vocab_size:
                raise RequestError(
                    f"Invalid key in 'logit_bias': {token_id} is no token id of this model, which has "
                    f"{self.vocab_size} tokens.",
                    param="logit_bias",
                    code="invalid_value",
                )

    def _turn_tokens(self, turn: Message) -> int:
        calls = sum(self._content_tokens(call.arguments) + _TURN_OVERHEAD for call in turn.tool_calls)
        return self._content_tokens(turn.content) + calls + _TURN_OVERHEAD

    def _rest_tokens(self, conversation: Conversation) -> int:
        tools = (json.dumps(dict(tool.parameters)) + tool.description for tool in conversation.tools)
        return sum(
            self._content_tokens(text) + _TURN_OVERHEAD for text in (conversation.system or "", *tools)
        )

    def _least_tokens(self, conversation: Conversation) -> int:
        """What no tokenisation can fall below, at a fraction of its cost: megabytes are refused in milliseconds."""
        texts = (
            conversation.system or "",
            *(tool.description for tool in conversation.tools),
            *(turn.content for turn in conversation.turns),
        )
        return self.plain_text.at_least(*texts)

    def _count_tokens(self, text: str) -> int:
        return len(self.plain_text.encode(text))


def _check_end(request: TurnRequest) -> None:
    """Refuse to hold half a message to a form: what the client wrote of it is no part of the form."""
    if request.end is PromptEnd.OPEN and (request.grammar is not None or request.tools.mode == "required"):
        raise RequestError(
            "A message cannot be continued in a reply that must be JSON or a tool call: it would be half of it.",
            param=f"messages[{len(request.messages) - 1}].role",
            code="invalid_value",
        )


Number = TypeVar("Number", int, float)


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value
