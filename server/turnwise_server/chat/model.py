"""The chat model: a tokenizer and its template in front of an engine. Loaded once, shared by every request."""

from __future__ import annotations

import hashlib
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerFast

from turnwise_server.chat import context
from turnwise_server.chat.checkpoint_files import GenerationDefaults, load_generation_defaults, load_tokenizer
from turnwise_server.chat.messages import Conversation, Message, normalise
from turnwise_server.chat.template import ChatTemplate
from turnwise_server.chat.token_text import longest_token_bytes, token_bytes
from turnwise_server.chat.turn import PreparedTurn, Turn, TurnRequest, seed_of_choice
from turnwise_server.engine.base import Engine, EngineInfo, Generation, GenerationRequest, SamplingParams
from turnwise_server.errors import RequestError

MAX_DEFAULT_TOKENS = 1024
"""A reply's length where the client names none; never endless, and always said as `length` when it cuts."""

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
        self._longest_token = longest_token_bytes(tokenizer)
        self._counts = context.TokenCounts(self._template.render, self._turn_tokens, self._least_tokens)
        self.context_length = info.context_length
        self.vocab_size = info.vocab_size
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
        wanted = self.default_max_tokens if request.max_tokens is None else request.max_tokens
        conversation = normalise(request.messages, keep_names=self._template.traits.writes_names)
        with self._tokenizer_lock:
            window = context.Window(self.context_length, wanted)
            fit = context.fit(conversation, window, self._counts, truncate=request.truncation == "auto")
        room = self.context_length - len(fit.prompt_ids)
        return PreparedTurn(
            id=request.id,
            tenant=request.tenant,
            prompt_ids=fit.prompt_ids,
            sampling=self._sampling(request, max_tokens=min(wanted, room)),
            n=request.n,
            stop=request.stop,
            dropped_messages=fit.dropped_messages,
        )

    def start(self, prepared: PreparedTurn) -> Turn:
        """Queue every choice in the engine and return the reply to be.

        Raises:
            QueueFullError: the engine's queue has no room for all the choices; none is left behind in it.
            EngineDeadError: the engine is not running.
        """
        generations: list[Generation] = []
        with ExitStack() as undo:
            for index in range(prepared.n):
                generation = self._engine.submit(self._choice_request(prepared, index))
                undo.callback(generation.cancel)
                generations.append(generation)
            undo.pop_all()
        return Turn(
            tuple(generations),
            tokenizer=self._tokenizer.backend_tokenizer,
            token_bytes=self._token_bytes,
            stop=prepared.stop,
        )

    def _choice_request(self, prepared: PreparedTurn, index: int) -> GenerationRequest:
        sampling = replace(prepared.sampling, seed=seed_of_choice(prepared.sampling.seed, index))
        return GenerationRequest(f"{prepared.id}-{index}", prepared.prompt_ids, sampling, prepared.tenant)

    def _sampling(self, request: TurnRequest, *, max_tokens: int) -> SamplingParams:
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
        return self._content_tokens(turn.content) + _TURN_OVERHEAD

    def _least_tokens(self, conversation: Conversation) -> int:
        """What no tokenisation can fall below, at a fraction of its cost: megabytes are refused in milliseconds."""
        if self._longest_token is None:
            return 0
        texts = (conversation.system or "", *(turn.content for turn in conversation.turns))
        return sum(-(-len(text.strip().encode()) // self._longest_token) for text in texts)

    def _count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


Number = TypeVar("Number", int, float)


def _or(value: Number | None, default: Number) -> Number:
    return default if value is None else value
