"""A base of another family, with its own control tokens, is trained and written so that it stops and is served."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from support.tiny_models import EOS_TOKEN_ID, Family, tiny_model
from support.tiny_tokenizers import CHATML, tiny_tokenizer
from turnwise_training.config import Optimization, SFTConfig
from turnwise_training.models import last_scores, load_reward_model
from turnwise_training.sft import run_sft


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_a_foreign_base_is_exported_with_the_tokens_that_end_its_turns(
    family: Family, tmp_path: Path, write_source: Callable[[str, list[object]], Path]
) -> None:
    tokenizer = tiny_tokenizer(CHATML.replace("<|im_end|>", "<|endoftext|>"), vocab_size=300)
    tiny_model(family).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    rows: list[object] = [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "hello"}]}
        for n in range(40)
    ]
    write_source("talk", rows)
    config = SFTConfig(
        name="foreign",
        model=tmp_path / "base",
        output=tmp_path / "out",
        rows={"talk": 30},
        epochs=1,
        seq_len=64,
        long_seq_len=128,
        batch_tokens=256,
        compile=False,
        data=tmp_path / "data",
        runs=tmp_path / "runs",
        optimization=Optimization(learning_rate=1e-3, muon_learning_rate=0.0),
    )
    run_sft(config, force=False)
    written = json.loads((tmp_path / "out/generation_config.json").read_text())
    turn_end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert written["eos_token_id"] == [turn_end, EOS_TOKEN_ID]
    assert written.get("pad_token_id") == AutoTokenizer.from_pretrained(tmp_path / "base").pad_token_id
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_a_reward_model_from_elsewhere_scores_with_its_plain_output(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    plain.save_pretrained(tmp_path / "classifier")
    scorer = load_reward_model(tmp_path / "classifier")
    tokens = torch.arange(20, 30)[None]
    expected = plain.score(plain.base_model(tokens).last_hidden_state)[0, -1, 0]
    found = last_scores(scorer, tokens, torch.ones_like(tokens, dtype=torch.bool))
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)
