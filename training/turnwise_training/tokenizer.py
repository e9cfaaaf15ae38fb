"""Trains the byte-level BPE tokenizer and writes its files with the chat template."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from turnwise_training.chat import CHAT_TEMPLATE, CONTROL_TOKENS, END_OF_TEXT, PAD, TURN_END, TURN_START
from turnwise_training.config import TokenizerConfig
from turnwise_training.data import contents, read_source, split_source
from turnwise_training.run import refuse_finished

# GPT-2's pattern with digits one by one, so that numbers are read and copied digit by digit.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, context_length: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of `vocab_size` tokens; any UTF-8 text round-trips through it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[END_OF_TEXT, TURN_START],
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer.save_pretrained(folder)


def describe(config: TokenizerConfig) -> dict[str, object]:
    """Return what a dry run prints: the text to read at most."""
    return {"megabytes_at_most": sum(config.sources.values())}


def run_tokenizer(config: TokenizerConfig, *, force: bool) -> None:
    """Train the tokenizer a recipe describes and write it to `config.output`."""
    refuse_finished(config.output / "tokenizer.json", force=force)
    tokenizer = train_tokenizer(
        _texts(config), vocab_size=config.vocab_size, context_length=config.context_length
    )
    save_tokenizer(tokenizer, config.output)


def _texts(config: TokenizerConfig) -> Iterator[str]:
    for name, megabytes in config.sources.items():
        train, _ = split_source(read_source(config.data, name, seed=config.seed), seed=config.seed)
        characters = 0.0
        for text in (text for row in train for text in contents(row)):
            if characters > megabytes * 1e6:
                break
            characters += len(text)
            yield text
