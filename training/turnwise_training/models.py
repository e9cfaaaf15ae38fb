"""Builds and loads the language model; its loss is in lm_loss.py, the loops are in the stages."""

from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from turnwise_training.chat import END_OF_TEXT, PAD, TURN_END
from turnwise_training.config import ModelShape


def new_model(shape: ModelShape, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """Return a Llama of this shape with seeded random weights in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context_length,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT]),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        dtype=torch.float32,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = generation_config(tokenizer)
    return model


def load_model(folder: Path) -> LlamaForCausalLM:
    """Return the model of a checkpoint directory with float32 weights."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """Return the sampling settings a checkpoint ships with."""
    return GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT]),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        max_new_tokens=512,
    )
