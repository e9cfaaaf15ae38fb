"""Reads rows of text, dialogues, rankings, prompts and votes from files. It knows nothing of tokens."""

from turnwise_training.data.native import to_json
from turnwise_training.data.rows import (
    Completion,
    Conversation,
    Message,
    Prompt,
    Ranking,
    Row,
    Text,
    Vote,
    contents,
    only,
)
from turnwise_training.data.sources import Tally, read_rows, read_source, source_path
from turnwise_training.data.split import is_held_out, split_source

__all__ = [
    "Completion",
    "Conversation",
    "Message",
    "Prompt",
    "Ranking",
    "Row",
    "Tally",
    "Text",
    "Vote",
    "contents",
    "is_held_out",
    "only",
    "read_rows",
    "read_source",
    "source_path",
    "split_source",
    "to_json",
]
