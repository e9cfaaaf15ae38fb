"""What the user is told about a reply besides its text. Pure functions from replies to lines."""

from __future__ import annotations

from turnwise_client.conversation import FAILED, INTERRUPTED, Reply
from turnwise_client.sanitise import one_line

_CUTS = {
    INTERRUPTED: "interrupted",
    FAILED: "incomplete",
    "length": "cut by the length limit",
    "content_filter": "cut by the server's content filter",
}


def reply_notices(reply: Reply) -> list[str]:
    """Return what must be said below a reply: dropped turns, a refusal, a cut. Most replies need nothing."""
    notices = []
    if reply.dropped_messages:
        count = (
            "1 earlier message"
            if reply.dropped_messages == 1
            else f"{reply.dropped_messages} earlier messages"
        )
        notices.append(f"{count} no longer fit the context: the model did not see them")
    if reply.refusal is not None:
        taken_back = "; what it said before is taken back" if reply.was_retracted else ""
        notices.append(f"refused by the server's policy: {one_line(reply.refusal)}{taken_back}")
    elif reply.finish_reason in _CUTS:
        notices.append(_CUTS[reply.finish_reason])
    elif not reply.text.strip():
        notices.append("the reply is empty")
    return notices


def status_line(*, model: str, context_length: int | None, reply: Reply | None) -> str:
    """Return the bottom line: model, tokens used of the context, speed, and how the last reply ended."""
    parts = [one_line(model) or "no model yet"]
    if reply is not None:
        if reply.usage is not None:
            total = f"{reply.usage.total_tokens:,}"
            parts.append(f"{total} of {context_length:,} tokens" if context_length else f"{total} tokens")
        if reply.tokens_per_second is not None:
            parts.append(f"{reply.tokens_per_second:.1f} tok/s")
        parts.append(one_line(reply.finish_reason))
    elif context_length:
        parts.append(f"{context_length:,} tokens of context")
    return " · ".join(parts)
