"""Recognises the format of a row by its keys and converts it to native rows, one converter for each format."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from turnwise_training.data.messages import read_answer, read_message, read_messages, read_prompt, user_says
from turnwise_training.data.native import (
    Fields,
    UnusableRow,
    conversation,
    parse_conversation,
    parse_prompt,
    parse_ranking,
    parse_text,
    parse_vote,
    ranking,
    read_name,
)
from turnwise_training.data.rows import (
    Completion,
    Conversation,
    Message,
    Ranking,
    Row,
    Vote,
    last_reply_only,
)
from turnwise_training.errors import DataError

Converter = Callable[[Fields, str], Row | Iterable[Row]]


@dataclass(frozen=True)
class Format:
    """One way of writing rows."""

    name: str
    keys: frozenset[str]
    """A row that has them all is of this format, if it is of none that stands earlier in the list."""
    convert: Converter
    is_native: bool = False


def convert_row(value: object, where: str) -> tuple[Format, list[Row]]:
    """Return the format of a JSON value and its native rows (several for a tree).

    Raises DataError that begins with `where` for a broken row, UnusableRow for one to be dropped.
    """
    try:
        if not isinstance(value, dict):
            raise DataError(f"expected a JSON object, found {type(value).__name__}")
        fields = {key: field for key, field in value.items() if field is not None}
        format_ = _detect(fields)
        rows = format_.convert(fields, where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return format_, [rows] if isinstance(rows, Row) else list(rows)


def _detect(fields: Fields) -> Format:
    keys = fields.keys()
    for format_ in FORMATS:
        if format_.keys <= keys:
            return format_
    raise DataError(
        f"no known format has the keys {sorted(keys)!r}; write a string 'text', a list 'messages' or a"
        " 'prompt' (docs/data-formats.md lists every format)"
    )


def _prompt_completion(fields: Fields, where: str) -> Conversation:
    """TRL: the loss falls on the completion alone."""
    prompt = read_prompt(fields["prompt"])
    messages: tuple[Message, ...] = (
        *prompt,
        {"role": "assistant", "content": read_answer(fields["completion"])},
    )
    return conversation(
        messages, train=last_reply_only(messages), user=read_name(fields, "user"), where=where
    )


def _chosen_rejected(fields: Fields, where: str) -> Ranking:
    return _compare(read_prompt(fields["prompt"]), fields["chosen"], fields["rejected"], fields, where)


def _whole_chosen_rejected(fields: Fields, where: str) -> Ranking:
    """TRL's implicit prompt and hh-rlhf: both dialogues are whole, and the prompt is what they share."""
    chosen, rejected = read_messages(fields["chosen"]), read_messages(fields["rejected"])
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(chosen[:-1], rejected[:-1], strict=False))
    prompt = tuple(message for message, _ in alike)
    if not prompt:
        raise DataError("'chosen' and 'rejected' share no message; add a 'prompt'")
    if len(chosen) != len(prompt) + 1 or len(rejected) != len(prompt) + 1:
        raise UnusableRow("the two dialogues part before their last message")
    return _compare(prompt, [chosen[-1]], [rejected[-1]], fields, where)


def _openai_preference(fields: Fields, where: str) -> Ranking:
    prompt = read_prompt(_inner(fields, "input", "messages"))
    return _compare(prompt, fields["preferred_output"], fields["non_preferred_output"], fields, where)


def _compare(
    prompt: tuple[Message, ...], chosen: object, rejected: object, fields: Fields, where: str
) -> Ranking:
    """Return the comparison; an explicit prompt may stand again at the head of both dialogues."""
    better, worse = (read_answer(_without(prompt, value)) for value in (chosen, rejected))
    if better == worse:
        raise UnusableRow("chosen and rejected are equal")
    return ranking(prompt, (Completion(better, 1), Completion(worse, 2)), fields, where)


def _without(prompt: tuple[Message, ...], value: object) -> object:
    if isinstance(value, list) and len(value) > 1 and read_messages(value[:-1]) == prompt:
        return value[-1]
    return value


def _responses_ranking(fields: Fields, where: str) -> Ranking:
    """`ranking` lists indices into `responses`, best first."""
    responses, order = fields["responses"], fields["ranking"]
    if not isinstance(responses, list) or not isinstance(order, list):
        raise DataError("expected lists 'responses' and 'ranking'")
    if sorted(map(repr, order)) != sorted(map(repr, range(len(responses)))):
        raise DataError(f"'ranking' must name each of {len(responses)} responses once; found {order!r}")
    completions = tuple(
        Completion(read_answer(responses[index]), rank) for rank, index in enumerate(order, start=1)
    )
    return ranking(read_prompt(fields["prompt"]), completions, fields, where)


def _response_reward(fields: Fields, where: str) -> Vote:
    reward = fields["reward"]
    if reward not in (0, 1):
        raise DataError(f"a 'reward' beside a 'response' is 0 or 1; found {reward!r}")
    answer = read_answer(fields["response"])
    return Vote(read_prompt(fields["prompt"]), answer, reward == 1, where=where)


def _oasst_tree(fields: Fields, where: str) -> Iterator[Ranking]:
    """Every message of a person with two ranked replies gives a ranking of all of them; rank 0 is the best."""
    rankings = list(_oasst_rankings(fields["prompt"], (), where))
    if not rankings:
        raise UnusableRow("no message of the tree has two ranked replies")
    yield from rankings


def _oasst_rankings(node: object, before: tuple[Message, ...], where: str) -> Iterator[Ranking]:
    said = (*before, read_message(node, len(before), content_key="text"))
    replies = _replies(node)
    ranked = {
        rank: read_message(reply, len(said), content_key="text")["content"]
        for reply in replies
        if isinstance(reply, dict) and isinstance(rank := reply.get("rank"), int)
    }
    if said[-1]["role"] == "user" and len(ranked) > 1:
        yield Ranking(said, tuple(Completion(ranked[rank], rank + 1) for rank in sorted(ranked)), where=where)
    for reply in replies:
        yield from _oasst_rankings(reply, said, where)


def _replies(node: object) -> list[object]:
    replies = node.get("replies") if isinstance(node, dict) else None
    return replies if isinstance(replies, list) else []


def _oasst_message(_fields: Fields, _where: str) -> Row:
    raise DataError("single OASST messages cannot be read; use the release's file of trees")


def _sharegpt(fields: Fields, where: str) -> Conversation:
    turns = fields["conversations"]
    if not isinstance(turns, list):
        raise DataError(f"expected a list 'conversations', found {type(turns).__name__}")
    messages = tuple(
        read_message(turn, number, role_key="from", content_key="value") for number, turn in enumerate(turns)
    )
    return conversation(messages, id=read_name(fields, "id"), where=where)


def _alpaca(fields: Fields, where: str) -> Conversation:
    return _instruction(fields, "input", "output", where)


def _dolly(fields: Fields, where: str) -> Conversation:
    return _instruction(fields, "context", "response", where)


def _instruction(fields: Fields, about: str, answer: str, where: str) -> Conversation:
    instruction, matter = _string(fields, "instruction"), _string(fields, about) if about in fields else ""
    asked = "\n\n".join(part for part in (instruction, matter) if part)
    return _asked(asked, _string(fields, answer), fields, where)


def _question_answer(fields: Fields, where: str) -> Conversation:
    return _asked(_string(fields, "question"), _string(fields, "answer"), fields, where)


def _asked(question: str, answer: str, fields: Fields, where: str) -> Conversation:
    messages: tuple[Message, ...] = (*user_says(question), {"role": "assistant", "content": answer})
    return conversation(messages, user=read_name(fields, "user"), where=where)


def _summarize_from_feedback(fields: Fields, where: str) -> Ranking:
    """OpenAI's summaries of posts, two compared; the prompt asks for the summary in words."""
    post = _inner(fields, "info", "post")
    summaries, choice = fields["summaries"], fields["choice"]
    if not isinstance(post, str):
        raise UnusableRow("an article instead of a post")
    objects = summaries if isinstance(summaries, list) else []
    texts = [_string(each, "text").strip() for each in objects if isinstance(each, dict)]
    if choice not in (0, 1) or len(texts) != 2:
        raise DataError(f"expected two 'summaries' and a 'choice' of 0 or 1; found {choice!r}")
    better, worse = texts if choice == 0 else texts[::-1]
    prompt = user_says(f"Summarize this post.\n\n{post.strip()}")
    return _compare(prompt, better, worse, {"labeler": fields.get("worker")}, where)


def _inner(fields: Fields, outer: str, inner: str) -> object:
    value = fields[outer]
    if not isinstance(value, dict):
        raise DataError(f"expected an object {outer!r}, found {type(value).__name__}")
    return value.get(inner)


def _string(fields: Fields, key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise DataError(f"expected a string {key!r}, found {type(value).__name__}")
    return value


def _keys(words: str) -> frozenset[str]:
    return frozenset(words.split())


FORMATS = (
    Format("OASST messages", _keys("message_tree_id text"), _oasst_message),
    Format("native text", _keys("text"), parse_text, is_native=True),
    Format("native conversations", _keys("messages"), parse_conversation, is_native=True),
    Format("OASST trees", _keys("message_tree_id prompt"), _oasst_tree),
    Format("native rankings", _keys("prompt completions"), parse_ranking, is_native=True),
    Format("native thumbs", _keys("prompt completion label"), parse_vote, is_native=True),
    Format("prompt and completion", _keys("prompt completion"), _prompt_completion),
    Format("prompt, chosen and rejected", _keys("prompt chosen rejected"), _chosen_rejected),
    Format("chosen and rejected dialogues", _keys("chosen rejected"), _whole_chosen_rejected),
    Format("prompt, responses and ranking", _keys("prompt responses ranking"), _responses_ranking),
    Format("prompt, response and reward", _keys("prompt response reward"), _response_reward),
    Format("native prompts", _keys("prompt"), parse_prompt, is_native=True),
    Format("OpenAI preference", _keys("input preferred_output non_preferred_output"), _openai_preference),
    Format("ShareGPT", _keys("conversations"), _sharegpt),
    Format("Alpaca", _keys("instruction output"), _alpaca),
    Format("Dolly", _keys("instruction response"), _dolly),
    Format("question and answer", _keys("question answer"), _question_answer),
    Format("summarize_from_feedback", _keys("info summaries choice"), _summarize_from_feedback),
)
"""In the order in which they are tried."""
