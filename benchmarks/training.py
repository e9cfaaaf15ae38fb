"""Measures pretraining: tokens/s of whole optimizer steps, fused and by the model's own forward, and peak memory.

Each case runs in a process of its own: it compiles, warms up, then times `--steps` steps of 16,384 tokens (forward,
backward, clipping, Muon and AdamW). Judge a quiet machine only; the best step is the one least disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from turnwise_training.batches import Rows
from turnwise_training.config import ModelShape, Optimization
from turnwise_training.lm_loss import loss_function, token_nll
from turnwise_training.loop import accumulate, row_batch, update
from turnwise_training.optimizers import Optimizers
from turnwise_training.parallel import Parallel

VOCABULARY, BATCH_TOKENS = 8192, 16384
SHAPES = {"15.7M": ModelShape(layers=8, intermediate_size=1024), "starter": ModelShape()}


@dataclass(frozen=True)
class Measured:
    """The speed and memory of one case."""

    loss: str
    seq_len: int
    best_tokens_per_s: float
    median_tokens_per_s: float
    update_ms: float
    peak_rss_mib: int


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="15.7M")
    parser.add_argument("--seq-len", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--loss", choices=("fused", "generic"), nargs="+", default=["fused", "generic"])
    parser.add_argument("--micro-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    cases = [(loss, seq_len) for seq_len in chosen.seq_len for loss in chosen.loss]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        work = [
            processes.submit(measure, chosen.shape, *case, chosen.micro_tokens, chosen.steps)
            for case in cases
        ]
        runs = [job.result() for job in work]
    if chosen.json:
        machine = {"threads": torch.get_num_threads(), "load_average_1m": round(os.getloadavg()[0], 2)}
        print(json.dumps({"shape": chosen.shape, **machine, "runs": [asdict(run) for run in runs]}, indent=2))
        return
    print(f"{'loss':8} {'T':>5} {'best tokens/s':>14} {'median':>8} {'update ms':>10} {'peak MiB':>9}")
    for run in runs:
        speeds = f"{run.best_tokens_per_s:14,.0f} {run.median_tokens_per_s:8,.0f} {run.update_ms:10.0f}"
        print(f"{run.loss:8} {run.seq_len:5} {speeds} {run.peak_rss_mib:9}")


def measure(shape: str, loss: str, seq_len: int, micro_tokens: int, steps: int) -> Measured:
    """Return the speed of `steps` optimizer steps of one case after two that warm up."""
    model = llama(SHAPES[shape])
    settings = Optimization()
    optimizers, parallel = Optimizers(model, settings), Parallel()
    work = nll_of(model, loss)
    ids = torch.randint(VOCABULARY, (BATCH_TOKENS // seq_len, seq_len + 1))
    batch = row_batch(Rows(ids[:, :-1], ids[:, 1:], None), micro_tokens=micro_tokens)
    whole, updates = [], []
    for _ in range(2 + steps):
        began = time.perf_counter()
        accumulate(work, batch, parallel)
        accumulated = time.perf_counter()
        update(model, optimizers, parallel, share=1.0, clip=settings.grad_clip)
        updates.append(time.perf_counter() - accumulated)
        whole.append(time.perf_counter() - began)
    return Measured(
        loss,
        seq_len,
        best_tokens_per_s=round(BATCH_TOKENS / min(whole[2:]), 1),
        median_tokens_per_s=round(BATCH_TOKENS / statistics.median(whole[2:]), 1),
        update_ms=round(1e3 * min(updates[2:]), 1),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def llama(shape: ModelShape) -> LlamaForCausalLM:
    """Return a Llama of this shape with random weights and tied embeddings."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            max_position_embeddings=shape.context_length,
            tie_word_embeddings=True,
        )
    ).train()


def nll_of(model: LlamaForCausalLM, loss: str) -> Callable[[Rows], Tensor]:
    """Return the compiled bfloat16 loss of rows: the product's own choice, or the model's own forward."""
    fused = loss_function(compile=True, precision="bfloat16")
    generic = torch.compile(token_nll, dynamic=False)

    def nll(rows: Rows) -> Tensor:
        if loss == "fused":
            return fused(model, rows.ids, rows.labels, rows.positions)
        with torch.autocast("cpu", torch.bfloat16):
            return generic(model, rows.ids, rows.labels, rows.positions)

    return nll


if __name__ == "__main__":
    main()
