"""The events of a streamed response, by the part of their type behind "response."."""

MESSAGE_EVENTS = [
    "created",
    "in_progress",
    "output_item.added",
    "content_part.added",
    "output_text.delta",
    "output_text.done",
    "content_part.done",
    "output_item.done",
    "completed",
]
"""Those of a response whose one item is a message, with all of its text in one delta."""
