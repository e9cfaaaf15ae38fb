"""The detector of kind `hf_causal_guard`: a language model that answers "safe", or "unsafe" and which hazards.

The score is what Meta's card of Llama Guard 3 says: "we look at the probability for the first token, and use that as
the 'unsafe' class probability" (PurpleLlama, Llama-Guard3/8B/MODEL_CARD.md). Here it is the probability of the first
token of "unsafe" against that of "safe", a softmax over these two. The hazards stand in the second line of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from turnwise_server.chat.checkpoint_files import load_tokenizer
from turnwise_server.chat.refusal.policy_stages import Detector as DetectorRule
from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.detector import DetectorError, Sample, Scores
from turnwise_server.moderation.guard_files import load_guard_model, verify_guard
from turnwise_server.moderation.guard_prompt import GuardPrompt
from turnwise_server.moderation.worker import BatchWorker

ASK_FROM: Final = 0.05
"""The probability from which the guard is asked which hazards it sees; below it, it sees none."""

MIN_CERTAINTY: Final = 0.5
"""What "safe" and "unsafe" must have together of the probability of all tokens. A guard that was talked into
something else has given no verdict."""

MAX_ANSWER_TOKENS: Final = 48
"""Most tokens of the second line: fourteen codes and the commas between them."""

_LEADS = ("", "\n\n", "\n", " ")
"""What guards write before their verdict: Llama Guard 3 two line ends, others nothing."""

_CODES = re.compile(r"\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*)\s*(?:\n|$)")

_Answer: TypeAlias = Scores | DetectorError


@dataclass(frozen=True, slots=True)
class VerdictTokens:
    """How one guard spells its verdict."""

    lead: tuple[int, ...]
    """What comes before it, whichever it is."""
    safe: int
    """The first token of "safe" that "unsafe" does not share."""
    unsafe: tuple[int, ...]
    """All tokens of "unsafe" from that place on."""


class GuardModel:
    """A guard's weights and spelling. Its calls block."""

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
        self._verdict = self._learn_spelling(source)

    @torch.inference_mode()
    def judge(self, sample: Sample) -> Scores:
        """Return the probability of "unsafe" for each hazard that the guard names; nothing where it sees none.

        Raises:
            DetectorError: the text is too long, or the guard gives no verdict, or no hazard for "unsafe".
        """
        cache = DynamicCache(config=self._model.config)
        logits = self._next(self._prompt.write(sample) + list(self._verdict.lead), cache)
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

    def _learn_spelling(self, source: Path) -> VerdictTokens:
        """Return the spelling in which the guard is most likely to begin its answer to a greeting."""
        greeting = self._prompt.write(Sample("Hello, how are you?"))
        try:
            found = {each: self._certainty(greeting, each) for each in spellings(self._tokenizer)}
        except Exception as error:
            raise DetectorFileError(
                f"{source} fails to answer a greeting: {error}. Check its config.json, or choose another guard."
            ) from error
        likely = [each for each in found if found[each] >= MIN_CERTAINTY]
        if not likely:
            raise DetectorFileError(
                f"{source} answers a greeting with neither 'safe' nor 'unsafe'. Choose a guard such as Llama Guard 3."
            )
        return likely[0]

    @torch.inference_mode()
    def _certainty(self, prompt: Sequence[int], verdict: VerdictTokens) -> float:
        """Return how probable it is that the answer begins with a verdict, in this spelling."""
        cache = DynamicCache(config=self._model.config)
        logits, certainty = self._next(prompt, cache), 1.0
        for token in verdict.lead:
            certainty *= float(logits.softmax(-1)[token])
            logits = self._next([token], cache)
        return certainty * float(logits.softmax(-1)[[verdict.safe, verdict.unsafe[0]]].sum())

    def _next(self, ids: Sequence[int], cache: DynamicCache) -> torch.Tensor:
        """Feed tokens and return the logits (V,) of the one that follows."""
        fed = torch.tensor([ids], device=self._model.device)
        output = self._model(input_ids=fed, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits
        return logits[0, -1].float()


class CausalGuard:
    """A `Detector` around a guard: one text at a time, in a thread of its own."""

    thresholds: Final[Scores] = {}
    """"unsafe" counts from one half, where it is the likelier answer."""

    def __init__(self, id: str, model: GuardModel, *, sha256: str) -> None:  # noqa: A002 (the policy's key)
        """Take a loaded guard and the digest of its weights."""
        self.id = id
        self.sha256 = sha256
        self.labels = model.codes
        self._model = model
        self._worker: BatchWorker[Sample, _Answer] = BatchWorker(
            self._run, name=f"detector-{id}", max_batch=1
        )

    async def score(self, samples: Sequence[Sample]) -> Sequence[Scores]:
        """Return the hazards of each sample with the probability of "unsafe".

        Raises:
            DetectorError: too much waits, a text is too long, or an answer cannot be read.
        """
        scores: list[Scores] = []
        for answer in await self._worker.submit(samples):
            if isinstance(answer, DetectorError):
                raise answer
            scores.append(answer)
        return scores

    async def close(self) -> None:
        """End the thread."""
        await self._worker.close()

    def _run(self, samples: Sequence[Sample]) -> list[_Answer]:
        return [self._judge(sample) for sample in samples]

    def _judge(self, sample: Sample) -> _Answer:
        try:
            return self._model.judge(sample)
        except DetectorError as error:
            return error


def load_causal_guard(rule: DetectorRule) -> CausalGuard:
    """Load the guard that the policy describes, which may take minutes.

    Raises:
        ConfigurationError: the directory is no guard, or not the one that was meant.
    """
    path = Path(rule.path or "").expanduser()
    sha256 = verify_guard(path, sha256=rule.sha256)
    model = GuardModel(load_guard_model(path), load_tokenizer(str(path)), source=path)
    return CausalGuard(rule.id, model, sha256=sha256)


def spellings(tokenizer: PreTrainedTokenizerFast) -> list[VerdictTokens]:
    """Return the ways in which a guard may spell its verdict, up to the first token that tells the two words apart."""
    found = []
    for lead in _LEADS:
        safe, unsafe = (
            tokenizer.encode(lead + word, add_special_tokens=False) for word in ("safe", "unsafe")
        )
        pairs = enumerate(zip(safe, unsafe, strict=False))
        shared = next((place for place, (one, other) in pairs if one != other), None)
        if shared is not None:
            found.append(VerdictTokens(tuple(safe[:shared]), safe[shared], tuple(unsafe[shared:])))
    return found


def unsafe_probability(logits: torch.Tensor, verdict: VerdictTokens) -> float:
    """Return the probability of "unsafe" against "safe" from the logits (V,) where the verdict stands.

    Raises:
        DetectorError: something else is more probable than the two together.
    """
    both = logits.softmax(-1)[[verdict.safe, verdict.unsafe[0]]]
    if not float(both.sum()) >= MIN_CERTAINTY:  # not a number is no verdict either
        raise DetectorError("the guard gave no verdict")
    return float(both[1] / both.sum())


def read_codes(line: str, known: frozenset[str]) -> list[str]:
    """Return the hazards that the second line of an answer names.

    Raises:
        DetectorError: it names none that is known.
    """
    match = _CODES.match(line)
    codes = [code for code in re.findall(r"S\d+", match[1]) if code in known] if match else []
    if not codes:
        raise DetectorError("the guard said 'unsafe' and named no hazard that can be read")
    return codes
