"""Any sequence classifier that `transformers` knows, for texts padded to a common length.

It imports torch and `transformers`; import it where a network is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.rounded_matrices import multiplies_bfloat16, round_matrices

_SPREAD: Final = 1.25
"""Texts share a forward pass if the longest has at most this many times the tokens of the shortest, and a few more."""
_FEW_TOKENS: Final = 8
_TOKEN_STEP: Final = 8
"""Passes are padded to a multiple of it: each length that is new costs milliseconds, in which kernels are compiled."""
_PASS_TOKENS: Final = 256
"""Tokens of a pass, padding of its texts included. More is no quicker on one core and takes memory."""


class PaddedNetwork:
    """A network in 32-bit floats but for its large matrices."""

    def __init__(self, module: Any) -> None:
        """Take a model of `transformers`."""
        self._module = module
        self._pad_token_id: int | None = module.config.pad_token_id
        self._most_tokens: int | None = getattr(module.config, "max_position_embeddings", None)

    @classmethod
    def load(cls, path: Path) -> PaddedNetwork:
        """Read configuration and weights.

        Raises:
            DetectorFileError: they are damaged, do not belong together, or are of an unknown architecture.
        """
        return cls(_load_module(path))

    @torch.inference_mode()
    def logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the logits of texts of token ids, shape (texts, labels); those of like length share a pass."""
        rows: dict[int, NDArray[np.float32]] = {}
        lengths = [len(text) for text in texts]
        for batch in batches(lengths, can_pad=self._pad_token_id is not None):
            length = self._padded(max(lengths[place] for place in batch))
            ids = torch.full((len(batch), length), self._pad_token_id or 0)
            mask = torch.zeros_like(ids)
            for row, place in enumerate(batch):
                ids[row, : lengths[place]] = torch.tensor(texts[place])
                mask[row, : lengths[place]] = 1
            logits = self._module(input_ids=ids, attention_mask=mask).logits
            rows.update(zip(batch, logits.numpy(), strict=True))
        return np.stack([rows[place] for place in range(len(texts))])

    def _padded(self, length: int) -> int:
        if self._pad_token_id is None:
            return length
        padded = -(-length // _TOKEN_STEP) * _TOKEN_STEP
        return padded if self._most_tokens is None else max(length, min(padded, self._most_tokens))


def batches(lengths: Sequence[int], *, can_pad: bool) -> Iterator[list[int]]:
    """Yield the places of lengths in groups of like length, each place once; alone where nothing can be padded."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[place]
        is_alike = can_pad and batch and length <= _SPREAD * lengths[batch[0]] + _FEW_TOKENS
        if batch and not (is_alike and length * (len(batch) + 1) <= _PASS_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _load_module(path: Path) -> Any:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        module, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise DetectorFileError(
            f"{path} cannot be loaded as a sequence classifier: {error}. Check config.json against the weights."
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise DetectorFileError(
            f"{path / 'model.safetensors'} lacks {len(missing)} weights, such as {missing[0]!r}. "
            "Give a model that was trained to classify, or download it again."
        )
    _halve_embeddings(module.get_input_embeddings())
    if multiplies_bfloat16():
        round_matrices(module)
    return module.eval()


def _halve_embeddings(table: Any) -> None:
    """Keep word embeddings in half precision where that loses nothing: they are half of a small encoder's memory."""
    weight = table.weight.detach()
    if all(torch.equal(part.half().float(), part) for part in weight.split(1024)):
        table.weight = torch.nn.Parameter(weight.half(), requires_grad=False)
        table.register_forward_hook(lambda _table, _ids, found: found.float())
