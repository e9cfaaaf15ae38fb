"""Small byte-level tokenizers with chat templates of every temper, built in memory."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Takes any role anywhere."""

STRICT = (
    "{% if messages and messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""No system role; user and assistant must alternate and the user begins, as with Gemma and early Mistral."""

NAMED = CHATML.replace(
    "+ '\n' + message['content']",
    "+ (' ' + message['name'] if message['name'] else '') + '\n' + message['content']",
)
"""Writes the speaker's name behind the role."""

_CORPUS = (
    "the quick brown fox jumps over the lazy dog. ",
    "hello world, how are you today? ",
    "naïve café 日本 🎉 ",
)


def tiny_tokenizer(template: str | None = CHATML, *, vocab_size: int = 320) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the control tokens of ChatML and the given chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=list(CONTROL_TOKENS[1:]),
    )
    fast.chat_template = template
    return fast
