"""How a causal guard spells its verdict, and what its answer means. Pure.

The score is what Meta's card of Llama Guard 3 says: "we look at the probability for the first token, and use that as
the 'unsafe' class probability" (PurpleLlama, Llama-Guard3/8B/MODEL_CARD.md). Here it is the probability of the first
token of "unsafe" against that of "safe", a softmax over these two. The hazards stand in the second line of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from transformers import PreTrainedTokenizerFast

from turnwise_server.moderation.detector import DetectorError

MIN_CERTAINTY: Final = 0.5
"""What "safe" and "unsafe" must have together of the probability of all tokens. A guard that was talked into
something else has given no verdict."""

_LEADS = ("", "\n\n", "\n", " ")
"""What guards write before their verdict: Llama Guard 3 two line ends, others nothing."""

_CODES = re.compile(r"\s*(S\d{1,2}(?:\s*,\s*S\d{1,2})*)\s*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class VerdictTokens:
    """How one guard spells its verdict."""

    lead: tuple[int, ...]
    """What comes before it, whichever it is."""
    safe: int
    """The first token of "safe" that "unsafe" does not share."""
    unsafe: tuple[int, ...]
    """All tokens of "unsafe" from that place on."""

    @property
    def first(self) -> list[int]:
        """The tokens that tell the verdict: of "safe", and of "unsafe"."""
        return [self.safe, self.unsafe[0]]


def spellings(tokenizer: PreTrainedTokenizerFast) -> list[VerdictTokens]:
    """Return the ways in which a guard may spell its verdict, up to the first token that tells the two words apart."""
    found = []
    for lead in _LEADS:
        safe, unsafe = (
            tokenizer.encode(lead + word, add_special_tokens=False) for word in ("safe", "unsafe")
        )
        shared = shared_length(safe, unsafe)
        if shared < min(len(safe), len(unsafe)):
            found.append(VerdictTokens(tuple(safe[:shared]), safe[shared], tuple(unsafe[shared:])))
    return found


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))


def unsafe_probability(logits: torch.Tensor, verdict: VerdictTokens) -> float:
    """Return the probability of "unsafe" against "safe" from the logits (V,) where the verdict stands.

    Raises:
        DetectorError: something else is more probable than the two together.
    """
    both = logits.softmax(-1)[verdict.first]
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
