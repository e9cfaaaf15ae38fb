"""Samples answers for PPO: the engine protocol, and the engine that runs the policy in this process.

Every answer has random numbers of its own, made from its key alone, so that it does not depend on the batch it is
sampled in, on the number of processes, or on where a run was resumed. The whole softmax at one temperature is sampled:
top-k and top-p would make the sampled distribution another one than the trained one.
"""

import copy
import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from turnwise_training.adapters import is_quantized
from turnwise_training.chat import Encoder
from turnwise_training.config import PPOConfig, Precision
from turnwise_training.episodes import Episode, Sample, lay_out
from turnwise_training.models import positions_of
from turnwise_training.parallel import Parallel
from turnwise_training.prompts import EncodedPrompt


class RolloutEngine(Protocol):
    """Samples answers from the policy."""

    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return one answer to each prompt; equal keys, prompts and weights give equal answers."""

    def refresh(self, policy: PreTrainedModel) -> None:
        """Take over the policy's weights after an update."""


def rollout_key(*parts: int) -> int:
    """Return 63 random bits that depend on all parts, such as seed, iteration and row."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


class TransformersEngine:
    """Runs the policy itself in batches, with a key-value cache; in bfloat16 it runs a copy of half the size."""

    def __init__(
        self,
        policy: PreTrainedModel,
        parallel: Parallel,
        *,
        end_ids: frozenset[int],
        pad_id: int,
        batch: int,
        precision: Precision,
    ) -> None:
        self._parallel = parallel
        self._end_ids = torch.tensor(sorted(end_ids), device=parallel.device)
        self._pad_id = pad_id
        self._batch = batch
        # Shards cannot be copied, nor can 4 bits become 16 again.
        is_plain = not parallel.is_sharded and not is_quantized(policy)
        self._copied = precision == "bfloat16" and is_plain
        self._model = copy.deepcopy(policy).to(torch.bfloat16) if self._copied else policy

    def refresh(self, policy: PreTrainedModel) -> None:
        """Take over the policy's weights after an update."""
        if self._copied:
            self._model.load_state_dict(policy.state_dict())

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[list[int]], keys: Sequence[int], *, max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        """Return one answer to each prompt, prompts of like length sampled together."""
        self._model.eval()
        samples: dict[int, Sample] = {}
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            batch = self._sample_batch(
                [prompts[row] for row in rows], [keys[row] for row in rows], max_new_tokens, temperature
            )
            samples.update(zip(rows, batch, strict=True))
        return [samples[row] for row in range(len(prompts))]

    def _sample_batch(
        self, prompts: list[list[int]], keys: list[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]:
        device = self._parallel.device
        laid = lay_out(prompts, [[] for _ in prompts], pad_id=self._pad_id).to(device)
        tokens, attend = laid.tokens, laid.attend
        numbers = torch.stack([_uniform(key, max_new_tokens) for key in keys]).to(device)
        cache = DynamicCache(config=self._model.config)
        answers = [_Growing() for _ in prompts]
        alive = list(answers)
        for step in range(max_new_tokens):
            logits = self._model(
                input_ids=tokens,
                attention_mask=attend.long(),
                position_ids=positions_of(attend)[:, -tokens.shape[1] :],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            chosen, log_probs = pick(logits, numbers[:, step], temperature=temperature)
            ended = torch.isin(chosen, self._end_ids)
            for answer, *facts in zip(
                alive, chosen.tolist(), log_probs.tolist(), ended.tolist(), strict=True
            ):
                answer.add(*facts)
            kept = (~ended).nonzero()[:, 0]
            if not self._parallel.any_in_step(len(kept) > 0):
                break
            if len(kept) == 0:  # keep others company: a sharded model's forward needs every process
                kept, alive[0] = kept.new_zeros(1), _Growing()
            if len(kept) < len(alive):
                cache.batch_select_indices(kept)
                alive = [alive[index] for index in kept.tolist()]
                attend, numbers, chosen = attend[kept], numbers[kept], chosen[kept]
            tokens = chosen[:, None]
            attend = torch.cat([attend, attend.new_ones(len(alive), 1)], 1)
        return [Sample(answer.ids, answer.ended, answer.log_probs) for answer in answers]


class _Growing:
    """An answer that is being sampled."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self.ended = False

    def add(self, token: int, log_prob: float, ended: bool) -> None:
        self.ids.append(token)
        self.log_probs.append(log_prob)
        self.ended = ended


def roll_out(
    engine: RolloutEngine,
    asked: Sequence[tuple[EncodedPrompt, int]],
    encoder: Encoder,
    parallel: Parallel,
    *,
    max_new_tokens: int,
    temperature: float,
) -> list[Episode]:
    """Return the answer to each prompt under its key; processes share the work and each gets all answers."""
    samples: list[Sample] = parallel.spread(
        asked,
        lambda part: engine.sample(
            [prompt.ids for prompt, _ in part],
            [key for _, key in part],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        ),
    )
    return [
        Episode(prompt.prompt, prompt.ids, sample, encoder.decode(sample.ids))
        for (prompt, _), sample in zip(asked, samples, strict=True)
    ]


def build_engine(
    config: PPOConfig, policy: PreTrainedModel, encoder: Encoder, parallel: Parallel
) -> RolloutEngine:
    """Return the engine a recipe asks for, with the policy's weights in it."""
    if config.engine.kind == "vllm":
        from turnwise_training.remote_engine import RemoteEngine

        return RemoteEngine(
            policy,
            parallel,
            url=config.engine.url,
            weights=config.runs / config.name / "engine",
            dtype=torch.bfloat16 if config.precision == "bfloat16" else torch.float32,
            end_ids=encoder.end_ids,
            concurrency=config.engine.batch,
        )
    return TransformersEngine(
        policy,
        parallel,
        end_ids=encoder.end_ids,
        pad_id=encoder.pad_id,
        batch=config.engine.batch,
        precision=config.precision,
    )


def pick(logits: Tensor, numbers: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return a token of softmax(`logits` / `temperature`) for each row and its log-probability.

    `logits` are [B, V]; `numbers` [B] in [0, 1) choose by the inverse of the cumulative distribution.
    """
    logs = torch.log_softmax(logits.float() / temperature, -1)
    cumulative = logs.double().exp().cumsum(-1)
    wanted = numbers[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, wanted, right=True).clamp(max=logits.shape[-1] - 1)
    return tokens[:, 0], logs.gather(1, tokens)[:, 0]


def _uniform(key: int, count: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(key), dtype=torch.float64)
