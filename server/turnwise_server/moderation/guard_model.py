"""A causal guard's weights at work: one forward pass for the verdict, a few more for the hazards. Its calls block."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Final, TypeAlias

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from turnwise_server.chat.refusal.policy_types import Stage
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.detector import Sample, Scores
from turnwise_server.moderation.guard_prompt import GuardPrompt
from turnwise_server.moderation.guard_verdict import (
    MIN_CERTAINTY,
    VerdictTokens,
    read_codes,
    shared_length,
    spellings,
    unsafe_probability,
)

ASK_FROM: Final = 0.05
"""The probability from which the guard is asked which hazards it sees; below it, it sees none."""

MAX_ANSWER_TOKENS: Final = 48
"""Most tokens of the whole answer: fourteen codes and the commas between them."""

_Read: TypeAlias = tuple[Sequence[int], DynamicCache]
"""The tokens of a prompt that was read, and what the model keeps of them."""


class GuardModel:
    """A loaded guard. Prompts are read from where they leave the words of the template, which it keeps."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, source: Path) -> None:
        """Find out how the guard of the model directory `source` takes its prompts and spells its verdicts.

        Raises:
            DetectorFileError: it has no template for exchanges, or answers a greeting with no verdict.
        """
        self._model = model
        self._tokenizer = tokenizer
        # Not all_special_ids: of Llama 3's tokenizers it knows one of the two tokens that end a turn.
        self._ends = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        room = int(model.config.get_text_config().max_position_embeddings) - MAX_ANSWER_TOKENS
        self._prompt = GuardPrompt(tokenizer, max_tokens=room, source=source)
        self.codes: Final = self._prompt.codes
        try:
            self._greetings: dict[Stage, _Read] = {
                "input": self._greet("input"),
                "output": self._greet("output"),
            }
            self._verdict = self._learn_spelling()
        except Exception as error:
            raise DetectorFileError(f"{source} fails to judge a greeting: {error}") from error

    @torch.inference_mode()
    def judge(self, sample: Sample) -> Scores:
        """Return the probability of "unsafe" for each hazard that the guard names; nothing where it sees none.

        Raises:
            DetectorError: the text is too long, or the guard gives no verdict, or no hazard for "unsafe".
        """
        ids = [*self._prompt.write(sample), *self._verdict.lead]
        logits, cache = self._read(ids, self._greetings[sample.stage])
        probability = unsafe_probability(logits, self._verdict)
        if probability < ASK_FROM:
            return {}
        return dict.fromkeys(read_codes(self._second_line(cache), self.codes), probability)

    def _second_line(self, cache: DynamicCache) -> str:
        """Return what the guard, after "unsafe", writes with most probability."""
        line: list[int] = []
        pending = list(self._verdict.unsafe)
        while len(line) < MAX_ANSWER_TOKENS - len(self._verdict.unsafe) - len(self._verdict.lead):
            token = int(self._next(pending, cache).argmax())
            if token in self._ends:
                break
            line.append(token)
            pending = [token]
        return str(self._tokenizer.decode(line))

    @torch.inference_mode()
    def _greet(self, stage: Stage) -> _Read:
        ids = self._prompt.write(Sample("Hello, how are you?", stage))
        cache = DynamicCache(config=self._model.config)
        self._next(ids, cache)
        return ids, cache

    def _learn_spelling(self) -> VerdictTokens:
        for spelling in spellings(self._tokenizer):
            if self._certainty(spelling) >= MIN_CERTAINTY:
                return spelling
        raise ValueError("it says neither 'safe' nor 'unsafe'. Choose a guard such as Llama Guard 3.")

    @torch.inference_mode()
    def _certainty(self, spelling: VerdictTokens) -> float:
        """Return how probable it is that the answer to the greeting begins with a verdict in this spelling."""
        greeting = self._greetings["input"]
        ids, certainty = list(greeting[0]), 1.0
        for expected in (*([token] for token in spelling.lead), spelling.first):
            logits, _ = self._read(ids, greeting)
            certainty *= float(logits.softmax(-1)[expected].sum())
            ids.append(expected[0])
        return certainty

    def _read(self, ids: Sequence[int], known: _Read) -> tuple[torch.Tensor, DynamicCache]:
        """Read a prompt from where it leaves a known one; return the logits (V,) behind it, and its cache."""
        shared = shared_length(known[0], ids[:-1])
        cache = deepcopy(known[1])
        cache.crop(shared - len(known[0]))
        return self._next(ids[shared:], cache), cache

    def _next(self, ids: Sequence[int], cache: DynamicCache) -> torch.Tensor:
        """Feed tokens and return the logits (V,) of the one that follows."""
        fed = torch.tensor([ids], device=self._model.device)
        output = self._model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits
        return logits[0, -1].float()
