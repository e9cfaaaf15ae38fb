"""Builds, loads and runs the four models of the ladder: policy, reference, reward and value.

Any Hugging Face causal language model serves as the policy. Scores come from a sequence classifier with one label,
whose `reward_scale` and `reward_bias` (config.json) make its output a score.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from turnwise_training.adapters import quantization
from turnwise_training.chat import END_OF_TEXT, PAD, TURN_END
from turnwise_training.config import Lora, ModelShape
from turnwise_training.errors import ConfigurationError
from turnwise_training.sharding import reads_weights


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
    return LlamaForCausalLM(config)


def load_model(folder: Path, lora: Lora | None = None) -> PreTrainedModel:
    """Return the language model of a checkpoint directory with float32 weights, or in 4 bits where `lora` says so.

    Raises ConfigurationError where the directory holds no model.
    """
    _require_model(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **quantization(lora))


def new_reward_model(folder: Path, *, seed: int, lora: Lora | None = None) -> PreTrainedModel:
    """Return a fine-tuned model whose output layer is replaced by a scalar head drawn from N(0, 1/sqrt(d+1)).

    Source: arXiv 2403.17031, detail 11; dropout is off (InstructGPT, appendix C).
    """
    _require_model(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=1, **quantization(lora)
    )
    weight: Tensor = model.score.weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5)
    model.config.reward_scale, model.config.reward_bias = 1.0, 0.0
    without_dropout(model)
    return model


def load_reward_model(folder: Path) -> PreTrainedModel:
    """Return a reward model ready to score; one that other tools wrote scores with its plain output.

    Raises ConfigurationError where the directory holds no model or no trained head: a new head would score at random.
    """
    _require_model(folder)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=1, output_loading_info=True
    )
    if loading["missing_keys"]:
        raise ConfigurationError(
            f"{folder} is no reward model: it lacks {sorted(loading['missing_keys'])}; "
            "train one with `turnwise-train reward`"
        )
    for name, plain in (("reward_scale", 1.0), ("reward_bias", 0.0)):
        if not hasattr(model.config, name):
            setattr(model.config, name, plain)
    without_dropout(model)
    return model


def new_value_model(folder: Path) -> PreTrainedModel:
    """Return a value model on the weights of a policy's directory, with a head of zeros."""
    model = new_reward_model(folder, seed=0)
    nn.init.zeros_(model.score.weight)
    return model


def without_dropout(model: nn.Module) -> None:
    """Turn every dropout off for good, in training mode too."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):  # Llama's attention
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 (its type is unknown)


def positions_of(attend: Tensor) -> Tensor:
    """Return position ids [B, L] that count attended tokens only, so that left padding shifts nothing."""
    return (attend.long().cumsum(-1) - 1).clamp(min=0)


def answer_logits(model: nn.Module, tokens: Tensor, attend: Tensor, *, answer_width: int) -> Tensor:
    """Return logits [B, T, V], where those at t predicted token t of the answer.

    `tokens` and `attend` are [B, P+T]; answers fill the last `answer_width` = T columns.
    """
    logits: Tensor = model(
        input_ids=tokens,
        attention_mask=attend.long(),
        position_ids=positions_of(attend),
        use_cache=False,
        logits_to_keep=answer_width + 1,
    ).logits
    return logits[:, :-1]


@reads_weights
def token_scores(model: PreTrainedModel, tokens: Tensor, attend: Tensor) -> Tensor:
    """Return the score [B, L] of each prefix that ends in each token; a reward model's score is the last one's."""
    scale: float = model.config.reward_scale
    bias: float = model.config.reward_bias
    return prefix_scores(model.base_model, model.score, tokens, attend) * scale + bias


def prefix_scores(base: nn.Module, head: nn.Module, tokens: Tensor, attend: Tensor) -> Tensor:
    """Return what a scalar head gives [B, L] for each prefix, before scale and bias."""
    hidden: Tensor = base(
        input_ids=tokens,
        attention_mask=attend.long(),
        position_ids=positions_of(attend),
        use_cache=False,
    ).last_hidden_state
    with torch.autocast(hidden.device.type, enabled=False):
        raw: Tensor = head(hidden.to(next(head.parameters()).dtype))
    return raw[..., 0]


def last_scores(model: PreTrainedModel, tokens: Tensor, attend: Tensor) -> Tensor:
    """Return the score [B] at each row's last attended token, on whichever side the padding is."""
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    last = torch.where(attend.bool(), columns, 0).amax(-1)
    scores = token_scores(model, tokens, attend)
    return scores.gather(1, last[:, None])[:, 0]


def _require_model(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} holds no model (config.json is missing); check the path")
