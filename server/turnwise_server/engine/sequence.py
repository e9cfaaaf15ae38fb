"""One sequence while the engine works on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnwise_server.engine.base import GenerationRequest
from turnwise_server.engine.kv_cache import KVBlock
from turnwise_server.engine.sampler import SamplingState


@dataclass(slots=True, eq=False)
class Sequence:
    """A request, its tokens so far and how far its keys and values are computed."""

    key: int
    """Names the sequence between the engine and its owner; unlike `request.id` it is never used twice."""
    request: GenerationRequest
    sampling: SamplingState
    limit: int
    """How many tokens, prompt included, it may come to."""
    tokens: list[int] = field(default_factory=list)
    block: KVBlock | None = None
    """Its own memory while the prompt is computed."""
    row: int = -1
    """Its row of the batch once it is decoded."""
    computed: int = 0
    """The first `computed` tokens are computed."""
    cached_tokens: int = 0
    """How many of them came from another sequence."""

    @property
    def prompt_length(self) -> int:
        """Return how many tokens the prompt has."""
        return len(self.request.prompt_ids)

    @property
    def is_prefilled(self) -> bool:
        """Say whether only the newest token has yet to be computed."""
        return self.computed >= self.prompt_length
