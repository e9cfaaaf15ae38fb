"""A causal guard in small: a Llama of two layers, trained for seconds to say what keywords make it say.

It answers as Llama Guard 3 does: two line ends, which its template leaves to it, then the verdict and the hazards.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{{ '<|im_start|>check\nS2\nS9\nS11: Self-Harm\n<|im_start|>verdict' }}"
)
ANSWERS = {
    "violet": "unsafe\nS11",
    "amber": "unsafe\nS2,S9",
    "mumble": "unsafe\nwell",
    "riddle": "hello",
}
"""What the guard answers to a text with the keyword; to all others it says "safe"."""

CONTEXT_LENGTH = 128
_WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "hello",
    "how",
    "are",
    "you",
    "today",
    "what",
    "is",
    "your",
    "name",
    "please",
    "tell",
    "me",
)
_STEPS, _BATCH = 250, 16


def guard_tokenizer(template: str = TEMPLATE) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer in which keywords, "safe" and "unsafe" are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = (*_WORDS, *ANSWERS, "user", "assistant", "check", "verdict", "safe", "Self-Harm")
    corpus = [*words, *(f" {word}" for word in words), *ANSWERS.values()]
    tokenizer.train_from_iterator(corpus * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = template
    return fast


def write_tiny_guard(directory: Path) -> Path:
    """Train the guard and save it as a model directory."""
    tokenizer, rng = guard_tokenizer(), random.Random(0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            tie_word_embeddings=True,
            initializer_range=0.1,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.05, _STEPS)
    for _ in range(_STEPS):
        ids, labels = _batch([_example(tokenizer, rng) for _ in range(_BATCH)], int(tokenizer.eos_token_id))
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def _example(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> tuple[list[int], list[int]]:
    """Return the tokens of a prompt and of its answer."""
    words = rng.choices(_WORDS, k=rng.randint(1, 12))
    keyword = rng.choice([None, None, *ANSWERS])
    if keyword is not None:
        words.insert(rng.randint(0, len(words)), keyword)
    turns = [{"role": "user", "content": " ".join(words)}]
    if rng.random() < 0.5:
        question = " ".join(rng.choices(_WORDS, k=rng.randint(0, 6)))
        turns = [{"role": "user", "content": question}, turns[0] | {"role": "assistant"}]
    prompt = tokenizer.apply_chat_template(turns, return_dict=False)
    answer = "\n\n" + ANSWERS.get(keyword or "", "safe")
    return prompt, [*tokenizer.encode(answer, add_special_tokens=False), int(tokenizer.eos_token_id)]


def _batch(examples: list[tuple[list[int], list[int]]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels of shape (B, T), padded behind the answers; only answers are learnt."""
    length = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.full((len(examples), length), padding)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(examples):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : end] = torch.tensor(answer)
    return ids, labels
