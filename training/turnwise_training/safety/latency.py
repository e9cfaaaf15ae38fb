"""How long a detector takes for a message on one core."""

import time
from collections.abc import Sequence
from statistics import median
from typing import Final

import torch

from turnwise_training.safety.detector import Detector

MESSAGES: Final = 200


def milliseconds_a_message(detector: Detector, texts: Sequence[str]) -> dict[str, float]:
    """Return the median and the 90th percentile over 200 texts spread over `texts`, one at a time, on one thread.

    Wall clock: other work on the machine makes it longer.
    """
    chosen = texts[:: max(1, len(texts) // MESSAGES)][:MESSAGES]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detector.scores(chosen[:3])
        taken = sorted(_milliseconds(detector, text) for text in chosen)
    finally:
        torch.set_num_threads(threads)
    return {"n": len(taken), "median": round(median(taken), 2), "p90": round(taken[len(taken) * 9 // 10], 2)}


def _milliseconds(detector: Detector, text: str) -> float:
    began = time.perf_counter()
    detector.scores([text])
    return 1000 * (time.perf_counter() - began)
