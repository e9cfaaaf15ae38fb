"""Packing and accumulation change the speed, never the loss or the gradient."""

import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from turnwise_training.batches import Rows, pack, stream_rows
from turnwise_training.chat import Encoded
from turnwise_training.config import ModelShape
from turnwise_training.lm_loss import IGNORED, token_nll
from turnwise_training.loop import accumulate, row_batch, row_loss
from turnwise_training.models import new_model
from turnwise_training.parallel import Parallel

SHAPE = ModelShape(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=48, context_length=128)


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return new_model(SHAPE, tokenizer, seed=0).double()


def ragged(count: int = 9) -> list[Encoded]:
    """Return conversations of different lengths, some tokens trained."""
    generator = torch.Generator().manual_seed(1)
    items = []
    for _ in range(count):
        length = int(torch.randint(3, 30, (), generator=generator))
        ids = torch.randint(4, 300, (length,), generator=generator).tolist()
        trained = (torch.rand(length, generator=generator) < 0.6).tolist()
        items.append(Encoded(ids, [*trained[:-1], True]))
    return items


def accumulated(model: LlamaForCausalLM, rows: Rows, *, micro_tokens: int) -> float:
    loss = row_loss(model, compile=False, precision="float32")
    return accumulate(loss, row_batch(rows, micro_tokens=micro_tokens), Parallel())


def gradients(model: LlamaForCausalLM) -> list[Tensor]:
    taken = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return taken


def test_packed_conversations_score_as_they_do_alone(model: LlamaForCausalLM) -> None:
    items = ragged()
    packed = pack(items, seq_len=64, pad_id=1)
    assert len(packed) < len(items)
    together = token_nll(model, packed.ids, packed.labels, packed.positions)
    together.backward()  # type: ignore[no-untyped-call]
    packed_gradients = gradients(model)
    alone = torch.zeros((), dtype=torch.float64)
    for item in items:
        logits = model(input_ids=torch.tensor([item.ids])).logits[0, :-1]
        log_probs = logits.log_softmax(-1).gather(1, torch.tensor(item.ids[1:])[:, None])[:, 0]
        alone = alone - log_probs[torch.tensor(item.trained[1:])].sum()
    alone.backward()  # type: ignore[no-untyped-call]
    assert together.item() == pytest.approx(alone.item(), rel=1e-6)
    for left, right in zip(packed_gradients, gradients(model), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-8)


def test_packing_keeps_every_conversation_whole_and_trains_its_trained_tokens() -> None:
    items = ragged(30)
    packed = pack(items, seq_len=64, pad_id=1)
    assert packed.trained_tokens == sum(sum(item.trained[1:]) for item in items)
    assert packed.positions is not None
    starts = int((packed.positions == 0).sum())
    rows_with_padding = sum(int((row == 1).any()) for row in packed.ids)
    assert starts == len(items) + rows_with_padding


def test_a_conversation_over_the_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack([Encoded([5] * 9, [True] * 9)], seq_len=8, pad_id=1)


def test_a_stream_predicts_every_token_once() -> None:
    rows = stream_rows(range(13), seq_len=4)
    assert rows.ids.flatten().tolist() == list(range(12))
    assert rows.labels.flatten().tolist() == list(range(1, 13))


def test_a_plain_row_scores_as_transformers_scores_it(model: LlamaForCausalLM) -> None:
    ids = torch.randint(4, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    rows = Rows(ids[:, :-1], ids[:, 1:], None)
    expected = model(input_ids=ids, labels=ids).loss * 2 * 19
    assert token_nll(model, rows.ids, rows.labels, None).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("micro_tokens", [32, 64, 96])
def test_the_size_of_micro_batches_changes_nothing(model: LlamaForCausalLM, micro_tokens: int) -> None:
    packed = pack(ragged(12), seq_len=32, pad_id=1)
    whole = accumulated(model, packed, micro_tokens=10_000)
    expected = gradients(model)
    split = accumulated(model, packed, micro_tokens=micro_tokens)
    assert split == pytest.approx(whole, rel=1e-6)
    for left, right in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-8)


def test_the_loss_of_a_batch_is_the_mean_over_its_trained_tokens(model: LlamaForCausalLM) -> None:
    packed = pack(ragged(5), seq_len=32, pad_id=1)
    value = accumulated(model, packed, micro_tokens=64)
    total = token_nll(model, packed.ids, packed.labels, packed.positions).item()
    assert value == pytest.approx(total / int((packed.labels != IGNORED).sum()), rel=1e-6)


def test_a_row_of_weight_two_counts_as_if_it_stood_there_twice(model: LlamaForCausalLM) -> None:
    light, heavy = ragged(2)
    twice = accumulated(model, pack([light, heavy, heavy], seq_len=64, pad_id=1), micro_tokens=64)
    expected = gradients(model)
    rows = pack([light, dataclasses.replace(heavy, weight=2.0)], seq_len=64, pad_id=1)
    assert accumulated(model, rows, micro_tokens=64) == pytest.approx(twice, rel=1e-9)
    for left, right in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-10)


def test_rows_of_equal_weight_carry_no_weights() -> None:
    assert pack(ragged(3), seq_len=64, pad_id=1).weights is None
    assert pack([], seq_len=64, pad_id=1).ids.shape == (0, 64)
