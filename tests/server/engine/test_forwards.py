"""Both forwards against the module's own logits: what the engine computes is what transformers computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from support.core_driver import random_prompt
from support.tiny_models import FAMILIES, Family, tiny_model
from turnwise_server.engine.forward import ModelForward, PrefillChunk
from turnwise_server.engine.kv_cache import KVBlock
from turnwise_server.engine.llama_forward import LlamaForward
from turnwise_server.engine.llama_weights import can_fuse, fuse
from turnwise_server.engine.module_check import check_forward
from turnwise_server.engine.module_forward import ModuleForward
from turnwise_server.errors import CheckpointError

CONTEXT = 128
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 5e5,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4},
}


def fused(module: PreTrainedModel) -> LlamaForward:
    assert can_fuse(module)
    return LlamaForward(fuse(module, CONTEXT))


def logits_in_pieces(forward: ModelForward, tokens: list[int], cuts: list[int]) -> torch.Tensor:
    """Return logits after chunks that end at `cuts`, then after every further token, decoded in the second row."""
    block = KVBlock(forward.kv_format, 1, 128)
    parts, start = [], 0
    with torch.inference_mode():
        for cut in cuts:
            parts.append(forward.prefill([PrefillChunk(block, start, tokens[start:cut])]))
            start = cut
        batch = KVBlock(forward.kv_format, 4, 128)
        batch.copy_row(1, block, 0, start)
        parts += [
            forward.decode(batch, [9, tokens[position]], [position // 2, position])[1:]
            for position in range(start, len(tokens))
        ]
    return torch.cat(parts)


def expected_logits(module: PreTrainedModel, tokens: list[int], cuts: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = module(torch.tensor([tokens])).logits[0]
    return logits[[*(cut - 1 for cut in cuts), *range(cuts[-1], len(tokens))]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cuts", [[1], [40], [7, 40, 41, 64, 90]])
def test_chunked_prefill_and_decode_equal_the_module(family: Family, cuts: list[int]) -> None:
    tokens = random_prompt(100, 3)
    expected = expected_logits(tiny_model(family), tokens, cuts)
    module = tiny_model(family)
    with torch.inference_mode():
        forward: ModelForward = fused(module) if can_fuse(module) else ModuleForward(module)
    torch.testing.assert_close(logits_in_pieces(forward, tokens, cuts), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_both_forwards_agree(family: Family) -> None:
    tokens = random_prompt(60, 4)
    with torch.inference_mode():
        plain = ModuleForward(tiny_model(family))
    torch.testing.assert_close(
        logits_in_pieces(fused(tiny_model(family)), tokens, [20, 50]),
        logits_in_pieces(plain, tokens, [20, 50]),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("rope", ROPES)
def test_fused_rope_equals_the_module(rope: str) -> None:
    config = LlamaConfig(**SHAPE, rope_parameters=ROPES[rope])
    torch.manual_seed(0)
    module = LlamaForCausalLM(config).eval()
    tokens = random_prompt(110, 5)
    expected = expected_logits(module, tokens, [70])
    torch.testing.assert_close(logits_in_pieces(fused(module), tokens, [70]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_fused_attention_shares_keys_among_any_number_of_heads(kv_heads: int) -> None:
    torch.manual_seed(0)
    module = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_key_value_heads": kv_heads}, head_dim=24)).eval()
    tokens = random_prompt(60, 5)
    expected = expected_logits(module, tokens, [30])
    torch.testing.assert_close(logits_in_pieces(fused(module), tokens, [30]), expected, rtol=1e-3, atol=1e-3)


def test_bfloat16_errs_no_more_than_the_module_does() -> None:
    tokens = random_prompt(100, 6)
    exact = expected_logits(tiny_model("llama"), tokens, [50])
    module_error = expected_logits(tiny_model("llama").to(torch.bfloat16), tokens, [50]).float() - exact
    error = logits_in_pieces(fused(tiny_model("llama").to(torch.bfloat16)), tokens, [50]).float() - exact
    assert error.abs().mean() < 1.5 * module_error.abs().mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
    ],
    ids=str,
)
def test_what_the_fused_forward_does_not_know_goes_through_the_module(changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = LlamaForCausalLM(LlamaConfig(**SHAPE | changes)).eval()
    assert not can_fuse(module)
    tokens = random_prompt(60, 7)
    expected = expected_logits(module, tokens, [30])
    with torch.inference_mode():
        forward = ModuleForward(module)
    torch.testing.assert_close(logits_in_pieces(forward, tokens, [30]), expected, rtol=1e-3, atol=1e-3)


def windowed_models() -> dict[str, PreTrainedModel]:
    """Models that look back 16 tokens, in all layers or in some."""
    torch.manual_seed(0)
    layers = ["sliding_attention", "full_attention"]
    return {
        "mistral": MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16)).eval(),
        "qwen2": Qwen2ForCausalLM(
            Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=16, layer_types=layers)
        ).eval(),
    }


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_sliding_windows_are_kept(name: str) -> None:
    module = windowed_models()[name]
    assert not can_fuse(module)
    tokens = random_prompt(90, 8)
    expected = expected_logits(module, tokens, [20, 60])
    with torch.inference_mode():
        forward = ModuleForward(module)
    torch.testing.assert_close(logits_in_pieces(forward, tokens, [20, 60]), expected, rtol=1e-3, atol=1e-3)


def test_another_family_works_through_its_module() -> None:
    torch.manual_seed(0)
    module = GemmaForCausalLM(GemmaConfig(**SHAPE, head_dim=16)).eval()
    tokens = random_prompt(60, 9)
    expected = expected_logits(module, tokens, [10, 30])
    with torch.inference_mode():
        forward = ModuleForward(module)
    torch.testing.assert_close(logits_in_pieces(forward, tokens, [10, 30]), expected, rtol=1e-3, atol=1e-3)


def test_recurrent_models_are_refused() -> None:
    module = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1)).eval()
    with pytest.raises(CheckpointError, match=r"MambaForCausalLM.*recurrent state"):
        ModuleForward(module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_passes_what_computes_the_same(dtype: torch.dtype) -> None:
    module = tiny_model("gpt2").to(dtype)
    with torch.inference_mode():
        check_forward(module, ModuleForward(module))


def test_check_refuses_a_model_that_ignores_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny_model("gpt2")
    embed = module.transformer.wpe.forward
    with torch.inference_mode():
        forward = ModuleForward(module)
        monkeypatch.setattr(forward, "_module", broken := tiny_model("gpt2"))
        monkeypatch.setattr(broken.transformer.wpe, "forward", lambda positions: embed(positions * 0))
        with pytest.raises(CheckpointError, match="computes something else than alone"):
            check_forward(module, forward)


def test_check_refuses_a_model_that_fails_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny_model("gpt2")

    def fail(*_: object) -> torch.Tensor:
        raise ValueError("no 4-D masks here")

    with torch.inference_mode():
        forward = ModuleForward(module)
        monkeypatch.setattr(forward, "decode", fail)
        with pytest.raises(CheckpointError, match=r"fails in a batch .ValueError: no 4-D masks here"):
            check_forward(module, forward)


def test_several_chunks_in_one_call_equal_each_alone() -> None:
    forward = fused(tiny_model("llama"))
    prompts = [random_prompt(length, length) for length in (5, 40, 17)]

    def chunk(prompt: list[int]) -> PrefillChunk:
        return PrefillChunk(KVBlock(forward.kv_format, 1, 64), 0, prompt)

    with torch.inference_mode():
        together = forward.prefill([chunk(prompt) for prompt in prompts])
        alone = torch.cat([forward.prefill([chunk(prompt)]) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
