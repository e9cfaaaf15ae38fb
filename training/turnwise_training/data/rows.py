"""The kinds of rows that stages train on. It knows neither files nor tokens.

Every row has a `group`, by which it is held out, and `where`, the file and line it came from, for messages.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypedDict, TypeVar

from turnwise_training.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


class Message(TypedDict):
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Text:
    """One document of running text."""

    text: str
    where: str = field(default="", compare=False, repr=False)

    @property
    def group(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Conversation:
    """One dialogue; at least one message is the assistant's."""

    messages: tuple[Message, ...]
    weight: float = 1.0
    """What each of its tokens counts in the loss."""
    train: tuple[bool, ...] | None = None
    """For each message, whether the loss may fall on it; None: on every message of the assistant."""
    id: str | None = None
    user: str | None = None
    where: str = field(default="", compare=False, repr=False)

    @property
    def group(self) -> str:
        return group_of(self.messages, self.user)

    def trains(self, message: int) -> bool:
        """Tell whether the loss falls on message number `message`."""
        is_reply = self.messages[message]["role"] == "assistant"
        return is_reply and (self.train is None or self.train[message])


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a ranking; the lowest rank is the best, equal ranks are a tie."""

    content: str
    rank: int
    policy: str | None = None
    """The model that wrote it."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """K answers to one prompt, ordered by a labeler; K = 2 is a comparison."""

    prompt: tuple[Message, ...]
    completions: tuple[Completion, ...]
    labeler: str | None = None
    margin: float = 0.0
    """By how much a better answer's score should lead."""
    id: str | None = None
    user: str | None = None
    where: str = field(default="", compare=False, repr=False)

    @property
    def group(self) -> str:
        return group_of(self.prompt, self.user)

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        """The prompt with each answer; the loss may fall on the answer alone."""
        return tuple(answered(self.prompt, answer.content, where=self.where) for answer in self.completions)

    @property
    def pairs(self) -> int:
        """The number of pairs of answers that do not tie."""
        ranks = [answer.rank for answer in self.completions]
        return sum(a < b for a in ranks for b in ranks)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages that a policy answers, and the other columns of the row, which reward functions receive."""

    prompt: tuple[Message, ...]
    columns: dict[str, object] = field(default_factory=dict)
    where: str = field(default="", compare=False, repr=False)

    @property
    def group(self) -> str:
        return group_of(self.prompt, self.user)

    @property
    def user(self) -> str | None:
        """Who wrote the prompt, if a column says so."""
        user = self.columns.get("user")
        return None if user is None else str(user)


@dataclass(frozen=True, slots=True)
class Vote:
    """One answer and whether somebody liked it."""

    prompt: tuple[Message, ...]
    completion: str
    label: bool
    id: str | None = None
    user: str | None = None
    where: str = field(default="", compare=False, repr=False)

    @property
    def group(self) -> str:
        return group_of(self.prompt, self.user)

    @property
    def conversation(self) -> Conversation:
        """The prompt with the answer."""
        return answered(self.prompt, self.completion, where=self.where)


Row = Text | Conversation | Ranking | Prompt | Vote
AnyRow = TypeVar("AnyRow", bound=Row)

KINDS: dict[type[object], str] = {
    Text: "running text",
    Conversation: "conversations",
    Ranking: "rankings",
    Prompt: "prompts",
    Vote: "thumbs",
}
"""What the kinds are called in messages and in docs/data-formats.md."""


def group_of(messages: tuple[Message, ...], user: str | None) -> str:
    """Return what rows of one user share or, where no user is known, rows that open with the same user words."""
    if user is not None:
        return f"user {user}"
    opening = (message["content"] for message in messages if message["role"] == "user")
    return next(opening, messages[0]["content"])


def answered(prompt: tuple[Message, ...], content: str, *, where: str = "") -> Conversation:
    """Return the conversation that `content` ends as the assistant's answer, the only message trained on."""
    messages: tuple[Message, ...] = (*prompt, {"role": "assistant", "content": content})
    return Conversation(messages, train=last_reply_only(messages), where=where)


def last_reply_only(messages: tuple[Message, ...]) -> tuple[bool, ...] | None:
    """Return the `train` flags of a conversation whose last message alone is trained on."""
    if any(message["role"] == "assistant" for message in messages[:-1]):
        return (False,) * (len(messages) - 1) + (True,)
    return None


def contents(row: Row) -> list[str]:
    """Return the texts of a row."""
    if isinstance(row, Text):
        return [row.text]
    messages = row.messages if isinstance(row, Conversation) else row.prompt
    return [message["content"] for message in messages] + [*_answers(row)]


def _answers(row: Row) -> Iterator[str]:
    if isinstance(row, Vote):
        yield row.completion
    if isinstance(row, Ranking):
        yield from (answer.content for answer in row.completions)


def only(rows: Iterable[Row], kind: type[AnyRow]) -> list[AnyRow]:
    """Return `rows` if all are of one kind; raises DataError naming the first that is not."""
    kept: list[AnyRow] = []
    for row in rows:
        if not isinstance(row, kind):
            raise DataError(f"{row.where}: this stage reads {KINDS[kind]}, found {KINDS[type(row)]}")
        kept.append(row)
    return kept
