"""The fused loss equals the model's own forward: value and gradients, one sequence a row or several packed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from turnwise_training import fused_llama
from turnwise_training.fused_llama import fused_nll, is_fusable
from turnwise_training.lm_loss import IGNORED, loss_function, token_nll

VOCABULARY, WIDTH = 61, 24
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(*, tied: bool = True) -> LlamaForCausalLM:
    return seeded(lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=tied)))


def gpt2() -> PreTrainedModel:
    return seeded(
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0)
        )
    )


def qwen2() -> PreTrainedModel:
    return seeded(lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)))


def seeded(build: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """Build a model with weights large enough for attention to matter."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    return model.eval()


def rows(*, packed: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ids, labels (some ignored) and positions of three rows; packed ones hold two or three stretches."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (3, WIDTH), generator=generator)
    labels = ids.roll(-1, dims=1).masked_fill(torch.rand(ids.shape, generator=generator) < 0.3, IGNORED)
    if not packed:
        return ids, labels, None
    lengths = [(9, 15), (24,), (3, 10, 11)]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])
    return ids, labels.masked_fill(positions.roll(-1, dims=1) == 0, IGNORED), positions


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal_losses(model: PreTrainedModel, one: Tensor, other: Tensor, *, within: float) -> None:
    assert one.item() == pytest.approx(other.item(), rel=within)
    of_one, of_other = gradients(model, one), gradients(model, other)
    assert of_one.keys() == of_other.keys()
    for name, gradient in of_one.items():
        scale = of_other[name].abs().max().item()
        assert (gradient - of_other[name]).abs().max().item() <= within * scale, name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_the_fused_loss_and_its_gradients_equal_the_models_own(
    packed: bool, tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_llama, "CHUNK", 20)  # several chunks and blocks, the last one shorter
    monkeypatch.setattr(fused_llama, "BLOCK", 10)
    model = llama(tied=tied)
    ids, labels, positions = rows(packed=packed)
    fused = fused_nll(model, ids, labels, positions, dtype=torch.float32, compile=False)
    assert_equal_losses(model, fused, token_nll(model, ids, labels, positions), within=1e-5)


def test_24_packed_sequences_stay_strangers_in_the_fused_loss() -> None:
    model = llama()
    ids, labels, positions = rows(packed=True)
    assert positions is not None
    alone = torch.zeros(())
    for row, starts in zip(range(3), ([0, 9], [0], [0, 3, 13]), strict=True):
        for start, end in zip(starts, [*starts[1:], WIDTH], strict=True):
            stretch = slice(start, end)
            alone = alone + fused_nll(
                model,
                ids[row : row + 1, stretch],
                labels[row : row + 1, stretch],
                None,
                dtype=torch.float32,
                compile=False,
            )
    together = fused_nll(model, ids, labels, positions, dtype=torch.float32, compile=False)
    assert_equal_losses(model, together, alone, within=1e-5)


def test_rope_scaling_and_a_head_size_of_its_own_are_followed() -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
    model = seeded(lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, head_dim=12, rope_parameters=rope)))
    ids, labels, _ = rows(packed=False)
    fused = fused_nll(model, ids, labels, None, dtype=torch.float32, compile=False)
    assert_equal_losses(model, fused, token_nll(model, ids, labels, None), within=1e-5)


def test_attention_scores_past_the_range_of_exp_give_a_finite_loss() -> None:
    model = llama()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(1e4)
    ids, labels, _ = rows(packed=False)
    fused = fused_nll(model, ids, labels, None, dtype=torch.float32, compile=False)
    assert fused.item() == pytest.approx(token_nll(model, ids, labels, None).item(), rel=1e-4)


def test_bfloat16_products_stay_near_the_exact_loss() -> None:
    model = llama()
    ids, labels, _ = rows(packed=False)
    rounded = fused_nll(model, ids, labels, None, dtype=torch.bfloat16, compile=False)
    assert rounded.item() == pytest.approx(token_nll(model, ids, labels, None).item(), rel=0.01)


@pytest.mark.parametrize("build", [gpt2, qwen2])
@pytest.mark.parametrize("packed", [False, True])
def test_another_architecture_goes_through_its_own_forward(
    build: Callable[[], PreTrainedModel], packed: bool
) -> None:
    model = build()
    assert not is_fusable(model)
    ids, labels, positions = rows(packed=packed)
    loss = loss_function(compile=False, precision="float32")(model, ids, labels, positions)
    expected = torch.zeros(())
    for row in range(len(ids)):
        starts = [0] if positions is None else (positions[row] == 0).nonzero()[:, 0].tolist()
        for start, end in zip(starts, [*starts[1:], WIDTH], strict=True):
            logits = model(input_ids=ids[row : row + 1, start:end]).logits[0]
            wanted = labels[row, start:end]
            expected = expected + functional.cross_entropy(
                logits, wanted, ignore_index=IGNORED, reduction="sum"
            )
    assert_equal_losses(model, loss, expected, within=1e-5)


def test_a_llama_with_biases_or_dropout_is_not_fused() -> None:
    assert is_fusable(llama())
    assert not is_fusable(LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True)))
    assert not is_fusable(LlamaForCausalLM(LlamaConfig(**SHAPE, attention_dropout=0.1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_the_compiled_fused_loss_equals_the_models_own_and_repeats_bit_for_bit() -> None:
    torch.set_num_threads(2)
    model = llama()
    ids, labels, positions = rows(packed=True)
    loss = loss_function(compile=True, precision="float32")
    fused = loss(model, ids, labels, positions)
    assert_equal_losses(model, fused, token_nll(model, ids, labels, positions), within=1e-5)
    first, second = (gradients(model, loss(model, ids, labels, positions)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
