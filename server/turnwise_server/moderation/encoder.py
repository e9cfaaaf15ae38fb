"""A Hugging Face sequence classifier that gives logits to texts. It runs no code that comes with a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from turnwise_server.errors import DetectorFileError
from turnwise_server.moderation.classifier_files import ClassifierFiles

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding, Tokenizer

_SPREAD: Final = 1.25
"""Texts share a forward pass if the longest has at most this many times the tokens of the shortest, and a few more."""
_FEW_TOKENS: Final = 8
_TOKEN_STEP: Final = 8
"""Passes are padded to a multiple of it: each length that is new costs milliseconds, in which kernels are compiled."""
_PASS_TOKENS: Final = 256
"""Tokens of a pass, padding of its texts included. More is no quicker on one core and takes memory."""


class Encoder:
    """A transformer with its tokenizer, in 32-bit floats but for its matrices."""

    def __init__(
        self,
        module: torch.nn.Module,
        tokenizer: Tokenizer,
        *,
        most_tokens: int,
        pad_token_id: int | None,
    ) -> None:
        """Take the most tokens that a pass may have of one text; a text of more is read in pieces."""
        tokenizer.no_padding()
        tokenizer.enable_truncation(most_tokens, stride=most_tokens // 2)
        self._module = module
        self._tokenizer = tokenizer
        self._most_tokens = most_tokens
        self._pad_token_id = pad_token_id

    @classmethod
    def load(cls, files: ClassifierFiles) -> Encoder:
        """Read configuration, weights and tokenizer.

        Raises:
            DetectorFileError: they are damaged, do not belong together, or are of an unknown architecture.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(files.path / "tokenizer.json"))
        except Exception as error:
            raise DetectorFileError(
                f"{files.path / 'tokenizer.json'} cannot be read: {error}. Copy it again."
            ) from error
        module = _load_module(files.path)
        return cls(
            module,
            tokenizer,
            most_tokens=files.max_length,
            pad_token_id=module.config.pad_token_id,
        )

    def pieces(self, texts: Sequence[str]) -> tuple[list[Encoding], list[int]]:
        """Return what the encoder reads of texts, one to three pieces of each, and the place of each piece's text.

        Neighbouring pieces share half of their tokens, so that each is read among others. Were all but the first cut
        off, some hundred characters of dense signs would hide what stands behind them.
        """
        found = [self._tokenizer.encode(text.encode("utf-8", "replace").decode()) for text in texts]
        pieces = [
            (piece, place)
            for place, first in enumerate(found)
            for piece in _first_middle_last([first, *first.overflowing])
        ]
        return [piece for piece, _ in pieces], [place for _, place in pieces]

    def logits(self, pieces: Sequence[Encoding]) -> NDArray[np.float32]:
        """Return a row of logits for each piece, shape (pieces, labels); pieces of like length share a pass."""
        import torch

        rows: dict[int, NDArray[np.float32]] = {}
        lengths = [len(piece.ids) for piece in pieces]
        with torch.inference_mode():
            for batch in batches(lengths, can_pad=self._pad_token_id is not None):
                length = self._padded(max(lengths[place] for place in batch))
                ids = torch.full((len(batch), length), self._pad_token_id or 0)
                mask = torch.zeros_like(ids)
                for row, place in enumerate(batch):
                    ids[row, : lengths[place]] = torch.tensor(pieces[place].ids)
                    mask[row, : lengths[place]] = 1
                logits = self._module(input_ids=ids, attention_mask=mask).logits
                rows.update(zip(batch, logits.numpy(), strict=True))
        return np.stack([rows[place] for place in range(len(pieces))])

    def _padded(self, length: int) -> int:
        if self._pad_token_id is None:
            return length
        return max(length, min(-(-length // _TOKEN_STEP) * _TOKEN_STEP, self._most_tokens))


def _first_middle_last(pieces: list[Encoding]) -> list[Encoding]:
    """Return at most three pieces: dense texts, such as Chinese ones, would take the time of ten otherwise."""
    return pieces if len(pieces) <= 3 else [pieces[0], pieces[len(pieces) // 2], pieces[-1]]


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
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    from turnwise_server.moderation.rounded_matrices import multiplies_bfloat16, round_matrices

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
    import torch

    weight = table.weight.detach()
    if all(torch.equal(part.half().float(), part) for part in weight.split(1024)):
        table.weight = torch.nn.Parameter(weight.half(), requires_grad=False)
        table.register_forward_hook(lambda _table, _ids, found: found.float())
