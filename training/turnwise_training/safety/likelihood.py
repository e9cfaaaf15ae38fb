"""What the models maximise: the labels where they are known, and `at least one` of unsafe texts without any."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from turnwise_training.safety.labels import LABELS
from turnwise_training.safety.rows import SafetyRow


def targets(rows: Sequence[SafetyRow]) -> Tensor:
    """Return 0 or 1 for each label, shape (B, 13); a row of -1 is unsafe in a way nobody wrote down."""
    unknown = [-1.0] * len(LABELS)
    return torch.tensor(
        [unknown if row.labels is None else [float(label in row.labels) for label in LABELS] for row in rows]
    )


def safety_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of `wanted` under independent labels; both (B, 13).

    An unsafe row without labels counts as -log(1 - prod(1 - p)), the noisy or of its labels' probabilities.
    """
    unknown = (wanted < 0).any(dim=1)
    known = binary_cross_entropy_with_logits(logits, wanted.clamp(min=0), reduction="none").sum(dim=1)
    none = -softplus(logits).sum(dim=1)
    some = -torch.log(-torch.expm1(none.clamp(max=-1e-6)))
    return torch.where(unknown, some, known).mean()


def any_probability(logits: Tensor) -> Tensor:
    """Return the probability of at least one label, shape (B,), of logits (B, 13)."""
    return -torch.expm1(-softplus(logits).sum(dim=1))
