"""The chat model: a tokenizer and its template in front of an engine. Loaded once, shared by every request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedTokenizerFast

from turnwise_server.chat.call_plan import CallPlan
from turnwise_server.chat.checkpoint_files import GenerationDefaults, load_generation_defaults, load_tokenizer
from turnwise_server.chat.messages import ClientMessage, without_oldest
from turnwise_server.chat.prompt_writer import PromptWriter
from turnwise_server.chat.template import PromptEnd
from turnwise_server.chat.token_text import token_bytes
from turnwise_server.chat.turn import PreparedTurn, Turn, TurnRequest, seed_of_choice
from turnwise_server.engine.base import Engine, EngineInfo, Generation, GenerationRequest, SamplingParams
from turnwise_server.errors import RequestError

MAX_DEFAULT_TOKENS = 1024
"""A reply's length where the client names none; never endless, and always said as `length` when it cuts."""


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
        self.prompts = PromptWriter(
            tokenizer,
            source=source,
            vocab_size=info.vocab_size,
            context_length=info.context_length,
            takes_grammars=info.takes_grammars,
        )
        self._engine = engine
        self._defaults = defaults
        self._token_bytes = token_bytes(tokenizer)
        self._stop_token_ids = info.stop_token_ids | {
            token_id
            for token_id in (tokenizer.eos_token_id, self.prompts.end_of_turn_id)
            if token_id is not None
        }
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
        calls = self.prompts.plan_calls(request.tools, request.grammar)
        fit = self.prompts.fit(
            request.messages,
            request.end,
            request.tools,
            calls,
            max_tokens=self._wanted_tokens(request),
            truncate=request.truncation == "auto",
        )
        prepared = self._prepared(request, (fit.prompt_ids,), fit.dropped_messages, calls)
        return replace(
            prepared,
            messages=without_oldest(request.messages, fit.dropped_messages),
            tools=request.tools.tools,
            has_form=request.grammar is not None,
            begins_message=request.end is PromptEnd.REPLY and prepared.sampling.grammar is None,
            goes_on=request.end is PromptEnd.OPEN,
        )

    def prepare_text(self, request: TurnRequest, prompts: Sequence[str | Sequence[int]]) -> PreparedTurn:
        """Tokenise prompts that go to the model as they are, without messages and template; see `prepare`.

        Raises:
            RequestError: the prompts or parameters cannot be served.
            ContextLengthError: a prompt does not fit. Nothing is left out of prompts.
        """
        self._check_logit_bias(request)
        plain = self.prompts.plain
        ids = [plain.prompt(prompt, context_length=self.context_length) for prompt in prompts]
        texts = (prompt if isinstance(prompt, str) else plain.decode(prompt) for prompt in prompts)
        messages = tuple(ClientMessage("user", text) for text in texts)
        return replace(self._prepared(request, tuple(ids)), messages=messages, goes_on=True)

    def start(self, prepared: PreparedTurn) -> Turn:
        """Queue every choice in the engine and return the reply to be.

        Raises:
            QueueFullError: the engine's queue has no room for all the choices; none is left behind in it.
            EngineDeadError: the engine is not running.
        """
        return self._start(prepared, [self._choice_request(prepared, at) for at in range(prepared.choices)])

    def start_again(self, prepared: PreparedTurn, index: int) -> Turn:
        """Queue choice `index` alone, with a seed of its own; see `start`."""
        request = self._choice_request(prepared, index)
        seed = seed_of_choice(prepared.sampling.seed, index + prepared.choices)
        return self._start(prepared, [replace(request, sampling=replace(request.sampling, seed=seed))])

    def _start(self, prepared: PreparedTurn, requests: Sequence[GenerationRequest]) -> Turn:
        generations: list[Generation] = []
        with ExitStack() as undo:
            for request in requests:
                generation = self._engine.submit(request)
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

    def _prepared(
        self,
        request: TurnRequest,
        prompts: tuple[tuple[int, ...], ...],
        dropped_messages: int = 0,
        calls: CallPlan | None = None,
    ) -> PreparedTurn:
        room = self.context_length - min(map(len, prompts))
        grammar = calls.grammar if calls else request.grammar
        return PreparedTurn(
            id=request.id,
            tenant=request.tenant,
            prompts=prompts,
            sampling=self._sampling(request, grammar, max_tokens=min(self._wanted_tokens(request), room)),
            n=request.n,
            stop=request.stop,
            dropped_messages=dropped_messages,
            calls=calls,
        )

    def _wanted_tokens(self, request: TurnRequest) -> int:
        return self.default_max_tokens if request.max_tokens is None else request.max_tokens

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
