"""Whole chat checkpoints with tiny random models, written to disk as a trainer would write them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from support.tiny_tokenizers import CHATML, tiny_tokenizer


def write_tiny_checkpoint(
    directory: Path,
    *,
    template: str = CHATML,
    tokenizer: PreTrainedTokenizerFast | None = None,
    context_length: int = 512,
) -> Path:
    """Write a random fp32 Llama of 320 byte-level tokens: it babbles bytes, half characters among them.

    A `tokenizer` of its own brings its template along.
    """
    tokenizer = tokenizer or tiny_tokenizer(template)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=[end_of_turn, tokenizer.eos_token_id],
        pad_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
