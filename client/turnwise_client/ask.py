"""`turnwise ask`: one question, one answer, made for pipes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO, TextIO

from turnwise_client.conversation import Reply
from turnwise_client.errors import ExitStatus, ServerError, UsageError
from turnwise_client.notices import reply_notices
from turnwise_client.output import Output
from turnwise_client.replies import ReplyBuilder
from turnwise_client.sanitise import json_for_terminal, valid_unicode
from turnwise_client.session import ChatSession
from turnwise_client.wire import read_completion


def read_prompt(words: Sequence[str], stdin: BinaryIO, *, stdin_is_terminal: bool) -> str:
    """Join the prompt from the arguments and, below them, what is piped in.

    Raises:
        UsageError: there is neither.
    """
    piped = "" if stdin_is_terminal else stdin.read().decode("utf-8", "replace")
    parts = [part for part in (valid_unicode(" ".join(words)), piped) if part.strip()]
    if not parts:
        raise UsageError('say what to ask: turnwise ask "...", or pipe the text in')
    return "\n\n".join(parts)


def stream_answer(session: ChatSession, output: Output) -> ExitStatus:
    """Show the answer to the session's last turn as it comes."""
    outcome = session.reply(output.display())
    if outcome.reply is not None:
        _notify(outcome.reply, output)
    if outcome.error is not None:
        output.error(str(outcome.error))
        return outcome.error.exit_status
    return ExitStatus.INTERRUPTED if outcome.was_interrupted else ExitStatus.OK


def print_json_answer(session: ChatSession, output: Output, stdout: TextIO) -> ExitStatus:
    """Print the whole reply object to the session's last turn, as the server sent it."""
    try:
        request = session.request()
        body, dropped_messages = session.api.complete(request)
        builder = ReplyBuilder(model=request.model)
        builder.add(read_completion(body), now_s=0.0)
    except ServerError as error:
        output.error(str(error))
        return error.exit_status
    builder.dropped_messages = dropped_messages
    stdout.write(json_for_terminal(json.dumps(body, indent=2, ensure_ascii=False)) + "\n")
    _notify(builder.complete(), output)
    return ExitStatus.OK


def _notify(reply: Reply, output: Output) -> None:
    for notice in reply_notices(reply):
        output.notice(notice)
