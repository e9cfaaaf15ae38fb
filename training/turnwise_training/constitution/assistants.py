"""The models that reply, criticise, revise and compare: one in this process, or one on an OpenAI-compatible server."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor

from turnwise_training.chat import Encoder, load_tokenizer
from turnwise_training.chat_server import ChatServer
from turnwise_training.config import Feedback
from turnwise_training.data import Message, Prompt
from turnwise_training.episodes import lay_out
from turnwise_training.errors import ConfigurationError, RewardError
from turnwise_training.models import load_model, positions_of
from turnwise_training.parallel import Parallel
from turnwise_training.prompts import EncodedPrompt
from turnwise_training.rollout import TransformersEngine, roll_out
from turnwise_training.run import weights_digest

Messages = tuple[Message, ...]
Letters = tuple[float, float]
"""The log-probabilities that a reply begins with A and with B; -inf for one that is not among the likely tokens."""
ALTERNATIVES: Final = 20
"""The most likely tokens that a server is asked for; OpenAI gives no more."""


class Assistant(Protocol):
    """A model that converses."""

    @property
    def name(self) -> str:
        """What the record calls it; another model has another name."""

    def replies(self, conversations: Sequence[Messages], keys: Sequence[int]) -> list[str]:
        """Return a sampled reply to each conversation; the key, 63 bits, fixes its random numbers."""

    def letters(self, conversations: Sequence[Messages]) -> list[Letters]:
        """Return how likely the reply to each conversation begins with the letter A, and with B."""


def load_assistant(source: str, settings: Feedback) -> Assistant:
    """Return the model that a recipe names; raises ConfigurationError where it cannot be loaded."""
    if source.startswith(("http://", "https://")):
        return ServedAssistant(source, settings)
    return LocalAssistant(Path(source), settings)


class LocalAssistant:
    """A checkpoint directory, run in this process."""

    def __init__(self, folder: Path, settings: Feedback) -> None:
        self._folder = folder
        self._settings = settings
        self._parallel = Parallel()
        self._encoder = Encoder(load_tokenizer(folder))
        self._model = load_model(folder)
        self._parallel.place(self._model)
        self._engine = TransformersEngine(
            self._model,
            self._parallel,
            end_ids=self._encoder.end_ids,
            pad_id=self._encoder.pad_id,
            batch=settings.batch,
            precision="bfloat16",
        )
        self._letter_ids = [self._ids_of(letter) for letter in "AB"]

    @property
    def name(self) -> str:
        """The directory's name and the beginning of its weights' digest."""
        return f"{self._folder.name} {weights_digest(self._folder)[:12]}"

    def replies(self, conversations: Sequence[Messages], keys: Sequence[int]) -> list[str]:
        """Return a reply to each; raises ConfigurationError for a conversation that does not fit the context."""
        encoded = [EncodedPrompt(Prompt(each), self._prompt_ids(each)) for each in conversations]
        episodes = roll_out(
            self._engine,
            list(zip(encoded, keys, strict=True)),
            self._encoder,
            self._parallel,
            max_new_tokens=self._settings.max_new_tokens,
            temperature=self._settings.temperature,
        )
        return [episode.reply.strip() for episode in episodes]

    @torch.no_grad()
    def letters(self, conversations: Sequence[Messages]) -> list[Letters]:
        """Return the log-probabilities of both letters as the first token, with a blank before it or without."""
        self._model.eval()
        ids = [self._prompt_ids(each) for each in conversations]
        laid = lay_out(ids, [[] for _ in ids], pad_id=self._encoder.pad_id).to(self._parallel.device)
        logits: Tensor = self._model(
            input_ids=laid.tokens,
            attention_mask=laid.attend.long(),
            position_ids=positions_of(laid.attend),
            logits_to_keep=1,
        ).logits[:, -1]
        logs = torch.log_softmax(logits.float(), -1)
        columns = [torch.logsumexp(logs[:, letter], -1).tolist() for letter in self._letter_ids]
        return list(zip(*columns, strict=True))

    def _prompt_ids(self, conversation: Messages) -> list[int]:
        ids = self._encoder.prompt_ids(conversation)
        needed, context = len(ids) + self._settings.max_new_tokens, self._model.config.max_position_embeddings
        if needed > context:
            raise ConfigurationError(
                f"a question needs {needed} tokens and {self._folder} has a context of {context}; lower "
                "feedback.max_new_tokens or choose another assistant"
            )
        return ids

    def _ids_of(self, letter: str) -> list[int]:
        encode = self._encoder.tokenizer.encode
        found = [encode(text, add_special_tokens=False) for text in (letter, f" {letter}")]
        single = sorted({ids[0] for ids in found if len(ids) == 1})
        if not single:
            raise ConfigurationError(
                f"{self._folder} has no token for the letter {letter}; it cannot compare"
            )
        return single


class ServedAssistant:
    """The first model of an OpenAI-compatible server."""

    def __init__(self, url: str, settings: Feedback) -> None:
        self._server = ChatServer(url)
        self._settings = settings

    @property
    def name(self) -> str:
        """The name that the server lists."""
        return self._server.model_name

    def replies(self, conversations: Sequence[Messages], keys: Sequence[int]) -> list[str]:
        """Return a reply to each; raises RewardError where the server gives none."""
        bodies = [
            {
                "messages": each,
                "temperature": self._settings.temperature,
                "max_tokens": self._settings.max_new_tokens,
                "seed": key % 2**31,
            }
            for each, key in zip(conversations, keys, strict=True)
        ]
        return [str(choice["message"]["content"]).strip() for choice in self._server.choices(bodies)]

    def letters(self, conversations: Sequence[Messages]) -> list[Letters]:
        """Return the log-probabilities of both letters as the first token; raises RewardError without logprobs."""
        asked = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": ALTERNATIVES}
        choices = self._server.choices([{"messages": each, **asked} for each in conversations])
        return [self._letters_of(choice) for choice in choices]

    def _letters_of(self, choice: Mapping[str, object]) -> Letters:
        match choice.get("logprobs"):
            case {"content": [{"top_logprobs": [*likely]}, *_]}:
                found = [(str(each["token"]).strip(), float(each["logprob"])) for each in likely]
                return _log_sum(found, "A"), _log_sum(found, "B")
            case {"content": []}:  # a server that refuses to compare says something it has not sampled
                return -math.inf, -math.inf
        raise RewardError(f"{self._server.url} gave no logprobs, which comparisons are read from")


def _log_sum(likely: Iterable[tuple[str, float]], letter: str) -> float:
    """Return the log of the probabilities' sum of all tokens that spell a letter."""
    total = math.fsum(math.exp(logprob) for token, logprob in likely if token == letter)
    return math.log(total) if total else -math.inf
