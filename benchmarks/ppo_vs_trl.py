"""Measures PPO episodes/s beside TRL's: same random models, prompts and batch words, in turns, float32 on both sides.

TRL 1.12 lives in an environment of its own (`pip install trl==1.12.0`), whose Python `--trl-python` names. The time of
an iteration is the best of a run's, without the first, so that neither side pays for starting. Judge a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.config import EngineSettings, ModelShape, PPOConfig, RewardTerm
from turnwise_training.models import new_model, new_reward_model
from turnwise_training.ppo_stage import run_ppo
from turnwise_training.prompts import read_prompts
from turnwise_training.tokenizer import save_tokenizer, train_tokenizer

BATCH, MINIBATCH, MICRO, NEW_TOKENS = 64, 16, 16, 32
SHAPE = ModelShape(hidden_size=128, layers=4, heads=4, kv_heads=2, intermediate_size=384, context_length=256)
SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trl-python", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        config = prepare(folder, chosen.iterations)
        for turn in range(chosen.rounds):
            theirs.append(trl_speed(chosen.trl_python, folder, chosen.iterations))
            ours.append(our_speed(config, folder, turn))
    report = {
        "batch": BATCH,
        "minibatch": MINIBATCH,
        "micro": MICRO,
        "max_new_tokens": NEW_TOKENS,
        "threads": torch.get_num_threads(),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "turnwise_episodes_per_s": [round(speed, 2) for speed in ours],
        "trl_episodes_per_s": [round(speed, 2) for speed in theirs],
        "ratio": round(max(ours) / max(theirs), 3),
    }
    print(json.dumps(report, indent=2))


def prepare(folder: Path, iterations: int) -> PPOConfig:
    """Save a policy, a reward model and prompts of 16 to 32 tokens; return our side's configuration."""
    chance = random.Random(0)
    texts = [" ".join(chance.choices(SYLLABLES, k=400)) for _ in range(20)]
    tokenizer = train_tokenizer(texts, vocab_size=512, context_length=256)
    for name in ("policy", "reward"):
        save_tokenizer(tokenizer, folder / name)
    new_model(SHAPE, tokenizer, seed=1).save_pretrained(folder / "policy")
    new_reward_model(folder / "policy", seed=2).save_pretrained(folder / "reward")
    (folder / "data").mkdir()
    rows = [{"prompt": [{"role": "user", "content": words(chance)}]} for _ in range(600)]
    (folder / "data" / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = PPOConfig(
        name="ours",
        model=folder / "policy",
        output=folder / "ours",
        prompts={"asked": len(rows)},
        rewards=(RewardTerm("model", str(folder / "reward")),),
        value_model=folder / "reward",
        iterations=iterations,
        batch=BATCH,
        minibatch=MINIBATCH,
        micro=MICRO,
        max_prompt_tokens=32,
        max_new_tokens=NEW_TOKENS,
        missing_eos_penalty=0.0,
        ema=0.0,
        kl_max=1e9,
        engine=EngineSettings(),
        data=folder / "data",
        runs=folder / "runs",
        show_every=iterations,
        save_every=iterations,
        precision="float32",
    )
    encoder = Encoder(load_tokenizer(folder / "policy"))
    read = read_prompts(
        config.prompts,
        encoder,
        data=config.data,
        max_tokens=config.max_prompt_tokens,
        seed=config.seed,
        held_out=False,
        required=True,
    )
    (folder / "prompts.json").write_text(json.dumps([list(prompt.ids) for prompt in read]))
    return config


def words(chance: random.Random) -> str:
    """Return a question of random words."""
    return " ".join(chance.choices(SYLLABLES, k=chance.randint(10, 24)))


def our_speed(config: PPOConfig, folder: Path, turn: int) -> float:
    """Return our episodes/s in the best iteration but the first."""
    name = f"ours-{turn}"
    run_ppo(replace(config, name=name, output=folder / name), force=True)
    lines = (folder / "runs" / name / "timing.jsonl").read_text().splitlines()
    return BATCH / min(float(json.loads(line)["seconds"]) for line in lines[1:])


def trl_speed(python: Path, folder: Path, iterations: int) -> float:
    """Return TRL's episodes/s in the best iteration but the first."""
    script = Path(__file__).with_name("ppo_trl.py")
    sizes = [str(size) for size in (BATCH, MINIBATCH, MICRO, NEW_TOKENS, iterations)]
    done = subprocess.run([python, script, folder, *sizes], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["episodes_per_s"])


if __name__ == "__main__":
    main()
