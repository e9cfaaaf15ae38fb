"""Rankings as token ids: every answer to a prompt once, and all rankings of them. It knows nothing of models."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from turnwise_training.chat import Encoder
from turnwise_training.data.rows import Conversation, Ranking, answered, group_of
from turnwise_training.errors import DataError


@dataclass(frozen=True)
class Order:
    """One ranking of a prompt's answers."""

    answers: list[int]
    """Indices into the prompt's answers."""
    ranks: list[int]
    """The rank of each; the lowest is the best, equal ranks are a tie."""
    margin: float
    labeler: str | None

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yield (better, worse) answers; ties give none."""
        ranked = list(zip(self.answers, self.ranks, strict=True))
        yield from ((a, b) for a, rank in ranked for b, other in ranked if rank < other)


@dataclass
class RankedPrompt:
    """All answers to one prompt: what stays together in a batch, so that each answer is read once."""

    source: str
    answers: list[list[int]] = field(default_factory=list)
    """Each answer with its prompt before it, up to the end token."""
    policies: list[str | None] = field(default_factory=list)
    """The model that wrote each answer, where known."""
    orders: list[Order] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        """The number of pairs over all rankings."""
        return sum(1 for order in self.orders for _ in order.pairs())


@dataclass
class Dropped:
    """Rankings that cannot be trained on, counted."""

    too_long: int = 0
    without_pair: int = 0


def rank_prompts(
    rankings: Sequence[Ranking],
    encoder: Encoder,
    *,
    source: str,
    count: int,
    max_tokens: int,
    margin: float,
    dropped: Dropped,
) -> list[RankedPrompt]:
    """Return the first `count` prompts of some rankings; rankings of one prompt are put together.

    A ranking with an answer over `max_tokens`, prompt included, is left out and counted, as is one of ties alone.
    `margin` is for rankings that give none.
    """
    prompts: dict[tuple[tuple[str, str], ...], RankedPrompt] = {}
    for ranking in rankings:
        key = tuple((message["role"], message["content"]) for message in ranking.prompt)
        if len(prompts) == count and key not in prompts:
            continue
        answers = encode_answers(ranking.conversations, encoder)
        if any(len(ids) > max_tokens for ids in answers):
            dropped.too_long += 1
        elif not ranking.pairs:
            dropped.without_pair += 1
        else:
            _add(prompts.setdefault(key, RankedPrompt(source)), ranking, answers, margin)
    return list(prompts.values())


def _add(prompt: RankedPrompt, ranking: Ranking, answers: Sequence[list[int]], margin: float) -> None:
    indices = []
    for ids, completion in zip(answers, ranking.completions, strict=True):
        if ids not in prompt.answers:
            prompt.answers.append(ids)
            prompt.policies.append(completion.policy)
        indices.append(prompt.answers.index(ids))
    ranks = [completion.rank for completion in ranking.completions]
    prompt.orders.append(Order(indices, ranks, ranking.margin or margin, ranking.labeler))


def encode_answers(conversations: Sequence[Conversation], encoder: Encoder) -> list[list[int]]:
    """Return the token ids of conversations up to the end token of the answer that ends them.

    Raises DataError naming the row of an answer that the chat template marks nowhere.
    """
    ids = []
    for conversation, encoded in zip(conversations, encoder.encode(conversations), strict=True):
        if not any(encoded.trained):
            raise DataError(f"{conversation.where}: the chat template marks no token as the answer's")
        ids.append(encoded.ids[: len(encoded.trained) - encoded.trained[::-1].index(True)])
    return ids


def last_reply(conversation: Conversation) -> Conversation:
    """Return a conversation up to its last reply, as rankings render one."""
    messages = conversation.messages
    last = max(number for number, message in enumerate(messages) if message["role"] == "assistant")
    return answered(messages[:last], messages[last]["content"], where=conversation.where)


def in_fold(ranking: Ranking, fold: tuple[int, int]) -> bool:
    """Tell whether a ranking belongs to part i of n; rankings of one user or opening always share a part."""
    part, parts = fold
    key = " ".join(group_of(ranking.prompt, ranking.user).lower().split())
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"fold").digest()
    return int.from_bytes(digest) % parts == part


def micro_batches(prompts: Sequence[RankedPrompt], *, micro_tokens: int) -> list[list[RankedPrompt]]:
    """Return prompts by length in groups of at most `micro_tokens` padded tokens; a larger prompt stands alone."""
    groups: list[list[RankedPrompt]] = []
    rows = 0
    for prompt in sorted(prompts, key=lambda prompt: max(map(len, prompt.answers))):
        rows += len(prompt.answers)
        if not groups or rows * max(map(len, prompt.answers)) > micro_tokens:
            groups.append([])
            rows = len(prompt.answers)
        groups[-1].append(prompt)
    return groups
