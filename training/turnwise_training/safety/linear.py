"""A linear model over hashed n-grams of words and characters, of numpy alone once it is trained."""

import json
import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from turnwise_training.safety.config import LinearSettings
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.rows import SafetyRow

WORD_GRAMS: Final = (1, 2)
CHARACTER_GRAMS: Final = (3, 4, 5)
FORMAT: Final = "hashed-ngrams-1"

_WORD: Final = re.compile(r"\w+|[^\w\s]")


def buckets_of(text: str, buckets: int) -> NDArray[np.int64]:
    """Return the sorted buckets of a text's n-grams, each once.

    Words and marks of the lower-cased NFKC text give `w:` grams of one and two joined by a blank; each word between
    underlines gives `c:` grams of three to five characters. The bucket is CRC-32 of its UTF-8 bytes modulo `buckets`.
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
    grams = {f"w:{' '.join(words[i : i + n])}" for n in WORD_GRAMS for i in range(len(words) - n + 1)}
    for word in set(words):
        edged = f"_{word}_"
        grams.update(f"c:{edged[i : i + n]}" for n in CHARACTER_GRAMS for i in range(len(edged) - n + 1))
    found = {zlib.crc32(gram.encode("utf-8", "replace")) % buckets for gram in grams}
    return np.fromiter(sorted(found), dtype=np.int64, count=len(found))


class LinearModel:
    """Weights (buckets, 13), a bias (13,) and the inverse document frequency of each bucket."""

    def __init__(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32], idf: NDArray[np.float32]
    ) -> None:
        self.weight, self.bias, self.idf = weight, bias, idf

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row of 13 logits for each text."""
        rows = np.tile(self.bias, (len(texts), 1))
        for row, text in zip(rows, texts, strict=True):
            places = buckets_of(text, len(self.idf))
            if len(places):
                values = self.idf[places]
                row += (values / np.linalg.norm(values)) @ self.weight[places]
        return rows

    def save(self, folder: Path) -> None:
        """Write linear.json and weights.safetensors (half precision)."""
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"format": FORMAT, "buckets": len(self.idf), "labels": list(LABELS)}
        facts |= {"word_grams": WORD_GRAMS, "character_grams": CHARACTER_GRAMS}
        (folder / "linear.json").write_text(json.dumps(facts, indent=2) + "\n")
        tensors = {"weight": self.weight, "bias": self.bias, "idf": self.idf}
        save_file(
            {name: each.astype(np.float16) for name, each in tensors.items()}, folder / "weights.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> "LinearModel":
        """Read what `save` wrote."""
        tensors = load_file(folder / "weights.safetensors")
        return cls(*(tensors[name].astype(np.float32) for name in ("weight", "bias", "idf")))


def train_linear(rows: Sequence[SafetyRow], settings: LinearSettings, *, seed: int) -> LinearModel:
    """Fit the weights by Adam on `likelihood.safety_loss`, the rate falling to nothing in a straight line."""
    import torch
    from torch.nn import Embedding, Parameter
    from torch.nn.functional import embedding_bag

    from turnwise_training.safety.likelihood import safety_loss, targets

    torch.manual_seed(seed)
    found = [torch.from_numpy(buckets_of(row.text, settings.buckets)) for row in rows]
    counts = torch.bincount(torch.cat(found), minlength=settings.buckets)
    idf = torch.log((1 + len(rows)) / (1 + counts.float())) + 1
    values = [idf[each] / idf[each].norm() for each in found]
    wanted = targets(rows)
    table = Embedding(settings.buckets, len(LABELS)).weight
    torch.nn.init.zeros_(table)
    bias = Parameter(torch.full((len(LABELS),), -4.0))
    optimizer = torch.optim.Adam([table, bias], lr=settings.learning_rate)
    size = 128
    steps = settings.epochs * -(-len(rows) // size)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(settings.epochs):
        for places in torch.split(torch.randperm(len(rows)), size):
            batch = [found[i] for i in places.tolist()]
            starts = torch.tensor([0, *(len(each) for each in batch[:-1])]).cumsum(0)
            weights = torch.cat([values[i] for i in places.tolist()])
            logits = embedding_bag(torch.cat(batch), table, starts, mode="sum", per_sample_weights=weights)
            loss = safety_loss(logits + bias, wanted[places])
            loss = loss + settings.weight_decay * table.square().sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            decay.step()
    return LinearModel(table.detach().numpy(), bias.detach().numpy(), idf.numpy())
