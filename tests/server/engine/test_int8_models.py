"""Whole models with int8 weights: near the unrounded ones, the same in any company, refused where they cannot be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import FalconConfig, FalconForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from support.core_driver import Driver, random_prompt
from support.tiny_models import FAMILIES, Family, tiny_model
from turnwise_server.engine.base import SamplingParams
from turnwise_server.engine.int8_modules import Int8Embedding, Int8Linear, round_module
from turnwise_server.engine.loading import load_engine
from turnwise_server.engine.module_forward import ModuleForward
from turnwise_server.engine.options import EngineOptions
from turnwise_server.errors import CheckpointError, ConfigurationError

PROMPT = random_prompt(45, 45)


def int8_driver(model: Path, *, dtype: str = "float32") -> Driver:
    options = EngineOptions(
        str(model), device="cpu", dtype=dtype, threads=1, max_batch=9, kv_memory_mb=64, quantization="int8"
    )
    return Driver(load_engine(options)[0])


def rounded_by_hand(module: PreTrainedModel) -> PreTrainedModel:
    """Return the module computing in floats with weights that were rounded to steps of int8 and back."""
    module, known = copy.deepcopy(module), set()
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    for layer in module.modules():
        is_conv = type(layer).__name__ == "Conv1D"
        shared = layer is embedding and head.weight is embedding.weight
        if (isinstance(layer, nn.Linear) or is_conv or shared) and id(layer.weight) not in known:
            known.add(id(layer.weight))
            weight = layer.weight.data.t() if is_conv else layer.weight.data
            step = weight.abs().amax(dim=1, keepdim=True) / 127
            steps = (weight / step).round() * step
            layer.weight.data = steps.t().contiguous() if is_conv else steps
    return module


@torch.inference_mode()
def logits_of(module: PreTrainedModel) -> torch.Tensor:
    logits: torch.Tensor = module(torch.tensor([PROMPT])).logits[0]
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_rounded_weights_and_near_those_of_the_exact_ones(family: Family) -> None:
    module = tiny_model(family)
    exact, by_hand = logits_of(module), logits_of(rounded_by_hand(module))
    round_module(module)
    rounded = logits_of(module)
    torch.testing.assert_close(rounded, by_hand, rtol=1e-3, atol=1e-3)
    # A step is 1/127 of a row's largest weight, about 2.7 of its deviations: uniform rounding moves a weight by
    # 2.7 / 127 / sqrt(12) = 0.6% of its size, and each of the seven matrices on the way adds about that, 1.6% in all.
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_that_of_the_rounded_weights(family: Family, checkpoints: dict[Family, Path]) -> None:
    module = rounded_by_hand(tiny_model(family))
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(12):
            ids.append(int(module(torch.tensor([ids])).logits[0, -1].argmax()))
    params = SamplingParams(max_tokens=12, temperature=0.0, logit_bias={})
    assert int8_driver(checkpoints[family]).run(PROMPT, params) == ids[len(PROMPT) :]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_promise_18_with_int8_a_seed_gives_the_same_tokens_alone_and_among_eight(
    family: Family, temperature: float, checkpoints: dict[Family, Path]
) -> None:
    params = SamplingParams(max_tokens=25, temperature=temperature, seed=5)
    driver = int8_driver(checkpoints[family])
    alone = driver.run(PROMPT, params)
    for other in range(8):
        driver.submit(random_prompt(8 + 9 * other, other), SamplingParams(max_tokens=40, temperature=1.0))
    driver.step(3)
    key = driver.submit(PROMPT, params)
    driver.finish()
    assert driver.tokens(key) == alone


def test_bfloat16_runs_through_both_forwards(checkpoints: dict[Family, Path]) -> None:
    for family in FAMILIES:
        assert len(int8_driver(checkpoints[family], dtype="bfloat16").run(PROMPT)) == 20


def test_shared_embeddings_stay_shared(checkpoints: dict[Family, Path]) -> None:
    for family in ("qwen2", "gpt2"):
        module = tiny_model(family)
        round_module(module)
        embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
        assert isinstance(embedding, Int8Embedding)
        assert isinstance(head, Int8Linear)
        assert embedding.weight is head.weight


def test_embeddings_of_their_own_stay_floats() -> None:
    module = tiny_model("llama")
    round_module(module)
    assert isinstance(module.get_input_embeddings(), nn.Embedding)
    assert isinstance(module.get_output_embeddings(), Int8Linear)


def test_a_shared_matrix_of_unusual_embeddings_stays_as_it_is() -> None:
    config = Gemma3TextConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    module = Gemma3ForCausalLM(config).eval()
    round_module(module)
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert isinstance(module.model.layers[0].mlp.down_proj, Int8Linear)


def test_nothing_that_stays_lies_in_the_memory_of_the_checkpoint_file() -> None:
    module = tiny_model("gpt2")
    loaded = [parameter.data for parameter in module.parameters()]  # held, so that nothing new can lie there
    round_module(module)
    kept = [
        *module.parameters(),
        *(layer.bias for layer in module.modules() if isinstance(layer, Int8Linear)),
    ]
    addresses = {tensor.data_ptr() for tensor in kept if tensor is not None}
    assert not addresses & {tensor.data_ptr() for tensor in loaded}


def test_matrices_of_odd_width_stay_floats() -> None:
    module = tiny_model("llama")
    module.model.layers[0].mlp.down_proj = nn.Linear(100, 64)
    round_module(module)
    assert isinstance(module.model.layers[0].mlp.down_proj, nn.Linear)


def test_a_model_without_plain_linear_layers_is_refused() -> None:
    config = FalconConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    module = FalconForCausalLM(config)
    module.lm_head = type(module.transformer.h[0].mlp.dense_h_to_4h)(32, 300)
    with pytest.raises(ConfigurationError, match=r"'FalconForCausalLM' has no linear layers that int8 takes"):
        round_module(module)


@pytest.mark.parametrize(
    ("choose", "name"),
    [
        (lambda module: module.model.layers[1].mlp.up_proj, "model.layers.1.mlp.up_proj"),
        (lambda module: module.lm_head, "lm_head"),
    ],
    ids=["a layer", "shared embeddings"],
)
def test_weights_that_are_no_numbers_are_refused_by_name(
    choose: Callable[[PreTrainedModel], nn.Linear], name: str
) -> None:
    module = tiny_model("qwen2")
    choose(module).weight.data[0, 3] = float("nan")
    with pytest.raises(CheckpointError, match=f"'{name}' cannot be rounded to int8: some are not finite"):
        round_module(module)


def test_the_generic_forward_takes_a_rounded_module_and_a_gpu_is_refused(llama_dir: Path) -> None:
    module = tiny_model("gpt2")
    round_module(module)
    with torch.inference_mode():
        assert ModuleForward(module).dtype is torch.float32
    with pytest.raises(ConfigurationError, match="'int4' is unknown"):
        load_engine(EngineOptions(str(llama_dir), device="cpu", quantization="int4"))


def test_another_form_of_the_weights_is_another_fingerprint(llama_dir: Path) -> None:
    infos = [
        load_engine(EngineOptions(str(llama_dir), device="cpu", dtype="float32", quantization=form))[1]
        for form in ("none", "int8")
    ]
    assert infos[0].fingerprint != infos[1].fingerprint
    assert [info.dtype for info in infos] == ["float32", "int8/float32"]
