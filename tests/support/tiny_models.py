"""Tiny random models with a tokenizer file, saved as checkpoint directories: real architectures, few weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

Family = Literal["llama", "qwen2", "gpt2"]
FAMILIES: tuple[Family, ...] = ("llama", "qwen2", "gpt2")

VOCAB_SIZE = 300
CONTEXT_LENGTH = 256
EOS_TOKEN_ID = 2


def tiny_model(family: Family, *, seed: int = 0, context_length: int = CONTEXT_LENGTH) -> PreTrainedModel:
    """Return a random float32 model whose greedy output wanders instead of repeating one token."""
    torch.manual_seed(seed)
    common = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": EOS_TOKEN_ID}
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context_length,
        "initializer_range": 0.3,
    }
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**common, **shape)).eval()
    if family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**common, **shape, tie_word_embeddings=True)).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        return model
    config = GPT2Config(
        **common, n_embd=64, n_layer=2, n_head=4, n_positions=context_length, initializer_range=0.3
    )
    return GPT2LMHeadModel(config).eval()


def save_tiny_model(
    directory: Path, family: Family = "llama", *, seed: int = 0, context_length: int = CONTEXT_LENGTH
) -> Path:
    """Save a tiny model with a word-level tokenizer, `t0` to `t299`, and return its directory."""
    tiny_model(family, seed=seed, context_length=context_length).save_pretrained(directory)
    vocabulary = {f"t{index}": index for index in range(VOCAB_SIZE)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def greedy_reference(model: PreTrainedModel, prompt_ids: list[int], max_tokens: int) -> list[int]:
    """Return what `transformers.generate` continues the prompt with, alone and greedily, never stopping early."""
    model.generation_config.eos_token_id = None
    output = model.generate(
        torch.tensor([prompt_ids]),
        attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    return [int(token) for token in output[0, len(prompt_ids) :]]
