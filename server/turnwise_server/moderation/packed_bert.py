"""BERT as a classifier (Devlin et al., 2019), for texts of any lengths in one pass without padding.

`transformers` runs these models too, but takes two seconds and 84 MB to import its models, pads texts, and computes the
last layer for every token, where only the first one is classified. This module imports torch; import it where a network
is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from turnwise_server.moderation.rounded_matrices import multiplies_bfloat16, round_matrices

_PASS_TOKENS: Final = 256
"""Tokens of a pass, unless one text has more; with more it would be no quicker on one core."""
_SHORT: Final = 64
_STEPS: Final = (8, 32)
"""Short passes are filled up to a multiple of the first number of tokens, longer ones of the second.

Each number of tokens that is new costs milliseconds, to compile kernels in, and megabytes, to keep them.
"""


class BertShape(BaseModel):
    """What config.json must say of a model that can be computed here."""

    architectures: tuple[Literal["BertForSequenceClassification"]]
    hidden_act: Literal["gelu"] = "gelu"
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    id2label: dict[str, str]

    @model_validator(mode="after")
    def _is_split_evenly(self) -> BertShape:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        return self

    def weights(self) -> dict[str, list[int]]:
        """Return the shape of each weight by its name."""
        width, between = self.hidden_size, self.intermediate_size
        shapes = {
            "bert.embeddings.word_embeddings.weight": [self.vocab_size, width],
            "bert.embeddings.position_embeddings.weight": [self.max_position_embeddings, width],
            "bert.embeddings.token_type_embeddings.weight": [self.type_vocab_size, width],
            **_norm_shapes("bert.embeddings.LayerNorm", width),
            **_linear_shapes("bert.pooler.dense", width, width),
            **_linear_shapes("classifier", len(self.id2label), width),
        }
        for layer in (f"bert.encoder.layer.{index}." for index in range(self.num_hidden_layers)):
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                shapes |= _linear_shapes(f"{layer}attention.{name}", width, width)
            shapes |= _linear_shapes(f"{layer}intermediate.dense", between, width)
            shapes |= _linear_shapes(f"{layer}output.dense", width, between)
            shapes |= _norm_shapes(f"{layer}attention.output.LayerNorm", width)
            shapes |= _norm_shapes(f"{layer}output.LayerNorm", width)
        return shapes


class PackedBert(nn.Module):
    """Reads texts one behind the other, each of which attends to itself alone."""

    def __init__(self, shape: BertShape, weights: Mapping[str, Tensor]) -> None:
        """Take over weights, by the names of `transformers`: word embeddings as they are, all else in 32-bit floats.

        Large matrices are rounded to bfloat16 where the processor multiplies in it.
        """
        super().__init__()
        embeddings = "bert.embeddings."
        kinds = weights[f"{embeddings}token_type_embeddings.weight"]
        places = weights[f"{embeddings}position_embeddings.weight"]
        self.words = weights[f"{embeddings}word_embeddings.weight"]
        self.places = places.float() + kinds[0].float()
        self.norm = _norm(weights, f"{embeddings}LayerNorm", shape.layer_norm_eps)
        names = [f"bert.encoder.layer.{index}." for index in range(shape.num_hidden_layers)]
        self.layers = nn.ModuleList(_Layer(shape, weights, name) for name in names)
        self.pooler = _linear(weights, "bert.pooler.dense")
        self.classifier = _linear(weights, "classifier")
        if multiplies_bfloat16():
            round_matrices(self)

    @torch.inference_mode()
    def logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits of texts of token ids, shape (texts, labels)."""
        return np.concatenate([self(batch).numpy() for batch in passes(texts)])

    def forward(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of texts that share a pass, shape (texts, labels)."""
        tokens = sum(map(len, texts))
        read = [*texts, [0] * (-tokens % _STEPS[tokens > _SHORT])]
        borders = list(accumulate(map(len, read), initial=0))
        spans = [slice(*pair) for pair in pairwise(borders)]
        ids = torch.tensor([token for text in read for token in text])
        places = torch.tensor([place for text in read for place in range(len(text))])
        states: Tensor = self.norm(self.words[ids].float() + self.places[places])
        *layers, last = self.layers
        for layer in layers:
            states = layer(states, states, spans, spans)
        firsts = [slice(place, place + 1) for place in range(len(texts))]
        states = last(states[borders[: len(texts)]], states, firsts, spans[: len(texts)])
        logits: Tensor = self.classifier(torch.tanh(self.pooler(states)))
        return logits


class _Layer(nn.Module):
    """Attention, then two affine maps, each with a residual and a norm behind it."""

    def __init__(self, shape: BertShape, weights: Mapping[str, Tensor], name: str) -> None:
        super().__init__()
        self.heads = shape.num_attention_heads
        self.query = _linear(weights, f"{name}attention.self.query")
        self.key_value = _linear(weights, f"{name}attention.self.key", f"{name}attention.self.value")
        self.attended = _linear(weights, f"{name}attention.output.dense")
        self.attended_norm = _norm(weights, f"{name}attention.output.LayerNorm", shape.layer_norm_eps)
        self.widen = _linear(weights, f"{name}intermediate.dense")
        self.narrow = _linear(weights, f"{name}output.dense")
        self.norm = _norm(weights, f"{name}output.LayerNorm", shape.layer_norm_eps)

    def forward(self, states: Tensor, seen: Tensor, own: Sequence[slice], spans: Sequence[slice]) -> Tensor:
        """Return the next states, shape (rows, width).

        Args:
            states: the rows that are computed, shape (rows, width).
            seen: the rows that are attended to.
            own: of each text, its rows of `states`; one text behind the other.
            spans: of each text, its rows of `seen`.
        """
        queries, (keys, values) = self.query(states), self.key_value(seen).chunk(2, dim=1)
        attended = [
            self._attention(queries[rows], keys[span], values[span])
            for rows, span in zip(own, spans, strict=True)
        ]
        states = self.attended_norm(states + self.attended(torch.cat(attended)))
        found: Tensor = self.norm(states + self.narrow(functional.gelu(self.widen(states))))
        return found

    def _attention(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        by_head = functional.scaled_dot_product_attention(
            self._split(queries), self._split(keys), self._split(values)
        )
        return by_head.transpose(1, 2).flatten(2)[0]

    def _split(self, rows: Tensor) -> Tensor:
        """Return rows by heads, shape (1, heads, rows, width of a head): in four dimensions attention is fused."""
        return rows.view(1, len(rows), self.heads, rows.shape[1] // self.heads).transpose(1, 2)


def packed_bert(path: Path) -> PackedBert | None:
    """Return the network of a directory, or None where that is no plain BERT classifier with all of its weights."""
    try:
        shape = BertShape.model_validate_json((path / "config.json").read_bytes())
        with safe_open(path / "model.safetensors", "pt") as file:
            found = {name: file.get_slice(name).get_shape() for name in file.offset_keys()}
            if any(found.get(name) != wanted for name, wanted in shape.weights().items()):
                return None
            return PackedBert(shape, {name: file.get_tensor(name) for name in shape.weights()})
    except (ValidationError, SafetensorError):
        return None


def passes(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Yield texts in order, in groups that share a pass."""
    batch: list[Sequence[int]] = []
    for text in texts:
        if batch and sum(map(len, batch)) + len(text) > _PASS_TOKENS:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


def _linear_shapes(name: str, outputs: int, inputs: int) -> dict[str, list[int]]:
    return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}


def _norm_shapes(name: str, width: int) -> dict[str, list[int]]:
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def _linear(weights: Mapping[str, Tensor], *names: str) -> nn.Linear:
    """Return affine maps of the same inputs as one, whose outputs stand side by side."""
    weight = torch.cat([weights[f"{name}.weight"].float() for name in names])
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    bias = torch.cat([weights[f"{name}.bias"].float() for name in names])
    linear.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return linear


def _norm(weights: Mapping[str, Tensor], name: str, epsilon: float) -> nn.LayerNorm:
    norm = nn.LayerNorm(weights[f"{name}.weight"].shape, eps=epsilon)
    norm.load_state_dict({part: weights[f"{name}.{part}"].float() for part in ("weight", "bias")})
    return norm
