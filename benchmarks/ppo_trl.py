"""Runs TRL's PPO on the models and prompts that ppo_vs_trl.py saved; prints episodes/s as JSON. Knows nothing of ours.

Started by ppo_vs_trl.py in an environment that has TRL 1.12: `python ppo_trl.py FOLDER BATCH MINIBATCH MICRO NEW_TOKENS
ITERATIONS`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset  # type: ignore[import-not-found]
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer  # type: ignore[import-not-found]


class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes when each iteration ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def main() -> None:
    """Run from the command line."""
    folder = Path(sys.argv[1])
    batch, minibatch, micro, new_tokens, iterations = map(int, sys.argv[2:])
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    prompts = json.loads((folder / "prompts.json").read_text())
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32) for _ in range(2)
    )
    scores, values = (
        AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32)
        for _ in range(2)
    )
    config = PPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        num_mini_batches=batch // minibatch,
        num_ppo_epochs=1,
        total_episodes=batch * iterations,
        local_rollout_forward_batch_size=batch,
        response_length=new_tokens,
        stop_token="eos",
        temperature=1.0,
        kl_coef=0.02,
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        bf16=False,
        use_cpu=True,
    )
    clock = Clock()
    PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=scores,
        value_model=values,
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        callbacks=[clock],
    ).train()
    spans = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    print(json.dumps({"iteration_s": spans, "episodes_per_s": batch / min(spans)}))


if __name__ == "__main__":
    main()
