"""Runs any Hugging Face causal model through its own module, with the engine's cache in place of transformers' own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from turnwise_server.engine.forward import PrefillChunk
from turnwise_server.engine.kv_cache import KVBlock, KVFormat, LayerShape
from turnwise_server.errors import CheckpointError

Masks = torch.Tensor | dict[str, torch.Tensor]


class ModuleForward:
    """Calls a `transformers` module with explicit positions and 4-D masks.

    Raises:
        CheckpointError: the architecture keeps something other than keys and values, or cannot be told positions.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._parameters = frozenset(inspect.signature(module.forward).parameters)
        self._window, self._kinds = _attention_kinds(module, self._parameters)
        self.dtype = next(module.parameters()).dtype
        self.device = next(module.parameters()).device
        layers, self.vocab_size = self._probe()
        self.kv_format = KVFormat(layers, self.dtype, self.device)

    def prefill(self, chunks: Sequence[PrefillChunk]) -> torch.Tensor:
        """Run the chunks one after the other and return the logits after each, `[chunks, V]`."""
        return torch.cat([self._prefill_one(chunk) for chunk in chunks])

    def decode(self, batch: KVBlock, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Run one token for each of the rows 0..B-1 and return the logits `[B, V]`."""
        at = torch.tensor(positions, device=self.device)
        slots = _Slots(batch, at[:, None], batch.capacity)
        return self._run(torch.tensor(token_ids, device=self.device)[:, None], slots)

    def _prefill_one(self, chunk: PrefillChunk) -> torch.Tensor:
        end = chunk.start + len(chunk.token_ids)
        at = torch.arange(chunk.start, end, device=self.device)
        slots = _Slots(chunk.block, at[None], end)
        return self._run(torch.tensor(chunk.token_ids, device=self.device)[None], slots)

    def _run(self, token_ids: torch.Tensor, slots: _Slots) -> torch.Tensor:
        arguments: dict[str, Any] = {
            "input_ids": token_ids,
            "position_ids": slots.positions,
            "attention_mask": self._masks(slots.positions, slots.length),
            "past_key_values": Cache(
                layers=[_SlotLayer(slots, index) for index in range(len(self.kv_format.layers))]
            ),
            "use_cache": True,
        }
        if "logits_to_keep" in self._parameters:
            arguments["logits_to_keep"] = 1
        logits: torch.Tensor = self._module(**arguments).logits
        return logits[:, -1]

    def _masks(self, positions: torch.Tensor, length: int) -> Masks:
        """Return additive masks `[B, 1, T, length]`, one for each kind of attention where the model has several."""
        key = torch.arange(length, device=self.device)
        query = positions[:, None, :, None]
        full = self._additive(key > query)
        if not self._window:
            return full
        sliding = self._additive((key > query) | (key <= query - self._window))
        return {"full_attention": full, "sliding_attention": sliding} if self._kinds else sliding

    def _additive(self, hidden: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(hidden, torch.finfo(self.dtype).min)

    def _probe(self) -> tuple[tuple[LayerShape, ...], int]:
        """Run one token through the module and return what each layer caches, and the vocabulary's size."""
        cache = DynamicCache()
        ids = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        logits = self._module(input_ids=ids, past_key_values=cache, use_cache=True).logits
        shapes = []
        for layer in cache.layers:
            if not isinstance(layer, CacheLayerMixin) or layer.keys is None or layer.values is None:
                raise _unsupported(self._module, "it keeps a state other than keys and values")
            shapes.append(LayerShape(layer.keys.shape[1], layer.keys.shape[-1], layer.values.shape[-1]))
        if not shapes:
            raise _unsupported(self._module, "it caches no keys and values")
        return tuple(shapes), logits.shape[-1]


class _Slots:
    """The positions one call of the module writes in the first rows of a block, and how many tokens it reads."""

    def __init__(self, block: KVBlock, positions: torch.Tensor, length: int) -> None:
        self.block = block
        self.positions = positions
        self.length = length
        self.rows = torch.arange(len(positions), device=positions.device)[:, None]


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc] # transformers is not typed
    """One layer of a block, as a module of `transformers` sees it."""

    is_sliding = False

    def __init__(self, slots: _Slots, index: int) -> None:
        super().__init__()
        self._slots = slots
        self._index = index
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing to do: the memory is the engine's."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store `[B, H, T, D]` at the rows' positions and return all that is cached there, `[B, H, length, D]`."""
        slots = self._slots
        count = len(slots.rows)
        keys, values = slots.block.keys[self._index][:count], slots.block.values[self._index][:count]
        keys[slots.rows, :, slots.positions] = key_states.transpose(1, 2)
        values[slots.rows, :, slots.positions] = value_states.transpose(1, 2)
        return keys[:, :, : slots.length], values[:, :, : slots.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and the offset of the keys that a mask must cover."""
        del query_length
        return self._slots.length, 0

    def get_seq_length(self) -> int:
        """Return how many tokens came before."""
        return int(self._slots.positions[0, 0])

    def get_max_length(self) -> int:
        """Return the row's capacity."""
        return self._slots.block.capacity


def _attention_kinds(module: PreTrainedModel, parameters: frozenset[str]) -> tuple[int, bool]:
    """Return the sliding window (0: none) and whether masks are chosen by the layer's kind."""
    if getattr(module, "_is_stateful", False):
        raise _unsupported(module, "it keeps a recurrent state")
    if not {"position_ids", "past_key_values"} <= parameters:
        raise _unsupported(module, "its forward takes no explicit positions or no cache")
    config = module.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {"full_attention", "sliding_attention"}:
        raise _unsupported(module, f"it has layers of kind {', '.join(sorted(kinds))}")
    window = getattr(config, "sliding_window", None)
    if "sliding_attention" not in kinds and kinds:
        window = None
    return int(window or 0), bool(kinds)


def _unsupported(module: PreTrainedModel, reason: str) -> CheckpointError:
    return CheckpointError(
        f"The architecture {type(module).__name__!r} cannot be served: {reason}. "
        "Choose a model with plain attention, or serve it with another engine."
    )
