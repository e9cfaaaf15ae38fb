"""The slash commands, in one table that drives dispatch, help, completion and the documentation's test.

A command changes the session and returns an `Action` that says what the loop shall do; it shows nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from turnwise_client import conversation as talk
from turnwise_client.errors import UsageError
from turnwise_client.export import EXPORT_FORMATS, write_export
from turnwise_client.notices import status_line
from turnwise_client.sanitise import one_line
from turnwise_client.session import ChatSession
from turnwise_client.settings import DEFAULT_WORD, SETTING_NAMES, change_sampling

PREFIX = "/"
NO_SYSTEM_WORD = "none"


@dataclass(frozen=True, slots=True)
class Action:
    """What the loop does after a command."""

    says: Sequence[str] = ()
    """Lines to show."""
    asks_again: bool = False
    """Get a reply for the last turn."""
    prefill: str = ""
    """Text to put into the next prompt for editing."""
    quits: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command."""

    name: str
    arguments: str
    """How its arguments are written in help; in brackets when they may be left out."""
    summary: str
    run: Callable[[ChatSession, str], Action]
    words: Callable[[ChatSession], Sequence[str]] = lambda _session: ()
    """What the first argument can be completed to."""

    @property
    def usage(self) -> str:
        return f"{PREFIX}{self.name} {self.arguments}".rstrip()


def _help(_session: ChatSession, _argument: str) -> Action:
    width = max(len(command.usage) for command in COMMANDS)
    lines = [f"{command.usage:<{width}}  {command.summary}" for command in COMMANDS]
    return Action(says=[*lines, "", *KEYS])


def _new(session: ChatSession, _argument: str) -> Action:
    session.new_conversation()
    return Action(says=["A new conversation."])


def _last_turn(session: ChatSession) -> talk.Turn:
    if not session.conversation.turns:
        raise UsageError("nothing has been said yet")
    return session.conversation.turns[-1]


def _retry(session: ChatSession, _argument: str) -> Action:
    _last_turn(session)
    return Action(asks_again=True)


def _undo(session: ChatSession, _argument: str) -> Action:
    prompt = _last_turn(session).prompt
    session.conversation = talk.undo(session.conversation)
    return Action(says=["The last turn is taken back."], prefill=prompt)


def _system(session: ChatSession, argument: str) -> Action:
    if argument:
        session.set_system(None if argument == NO_SYSTEM_WORD else argument)
    return Action(says=[f"System prompt: {session.conversation.system or NO_SYSTEM_WORD}"])


def _model(session: ChatSession, argument: str) -> Action:
    if argument:
        session.choose_model(argument)
        return Action(says=[f"Model: {session.model}"])
    marks = {session.model: "*"}
    return Action(says=[f"{marks.get(info.id, ' ')} {info.id}" for info in session.refresh_models()])


def _set(session: ChatSession, argument: str) -> Action:
    name, _, value = argument.partition(" ")
    if not value.strip():
        raise UsageError(
            f"say what to set: {COMMANDS_BY_NAME['set'].usage}, names {', '.join(SETTING_NAMES)}"
        )
    session.sampling = change_sampling(session.sampling, name, value.strip())
    return Action(says=_sampling_lines(session))


def _sampling_lines(session: ChatSession) -> list[str]:
    chosen = session.sampling.as_fields()
    return [f"{name}: {chosen.get(name, DEFAULT_WORD)}" for name in SETTING_NAMES]


def _show(session: ChatSession, _argument: str) -> Action:
    turns, last = session.conversation.turns, session.conversation.last_reply
    status = status_line(model=session.model, context_length=session.context_length, reply=last)
    return Action(
        says=[
            f"server: {session.api.server}",
            f"model: {session.model or 'not known yet'}",
            f"system prompt: {session.conversation.system or NO_SYSTEM_WORD}",
            *_sampling_lines(session),
            f"turns: {len(turns)}",
            *([f"last reply: {status}"] if last else []),
        ]
    )


def _export(session: ChatSession, argument: str) -> Action:
    form, _, name = argument.partition(" ")
    if not name.strip():
        raise UsageError(f"say how and where: {COMMANDS_BY_NAME['export'].usage}")
    _last_turn(session)
    try:
        path = Path(name.strip()).expanduser()
    except RuntimeError as error:
        raise UsageError(f"cannot tell where {name.strip()!r} is") from error
    write_export(session.conversation, form, path)
    return Action(says=[f"Wrote {path}"])


def _quit(_session: ChatSession, _argument: str) -> Action:
    return Action(quits=True)


COMMANDS = (
    Command("help", "", "list the commands and keys", _help),
    Command("new", "", "start a new conversation; the system prompt and settings stay", _new),
    Command("retry", "", "ask the last question again for another reply", _retry),
    Command("undo", "", "take back the last turn and put its text into the prompt", _undo),
    Command(
        "system",
        f"[TEXT|{NO_SYSTEM_WORD}]",
        "show, set or remove the system prompt",
        _system,
        lambda _session: [NO_SYSTEM_WORD],
    ),
    Command(
        "model",
        "[ID]",
        "list the server's models, or choose one",
        _model,
        lambda session: session.known_models,
    ),
    Command(
        "set",
        f"NAME VALUE|{DEFAULT_WORD}",
        f"change {', '.join(SETTING_NAMES)}",
        _set,
        lambda _session: SETTING_NAMES,
    ),
    Command("show", "", "show the server, model, settings and token counts", _show),
    Command(
        "export",
        f"{'|'.join(EXPORT_FORMATS)} PATH",
        "write the conversation to a new file",
        _export,
        lambda _session: tuple(EXPORT_FORMATS),
    ),
    Command("quit", "", "leave (so does Ctrl-D)", _quit),
)
COMMANDS_BY_NAME = {command.name: command for command in COMMANDS}

KEYS = (
    "Enter          send",
    "Alt-Enter      new line (so does Ctrl-J); pasted lines never send by themselves",
    "Ctrl-C         stop the reply and keep what came; at an empty prompt, twice quits",
    "Ctrl-R, Up     search and repeat what you typed before",
    "Ctrl-X Ctrl-E  write in $EDITOR",
)


def is_command(text: str) -> bool:
    """Tell whether `text` is meant for us. A message may begin with a slash when a space stands before it."""
    return text.startswith(PREFIX)


def run_command(session: ChatSession, text: str) -> Action:
    """Run the command in `text`, which never reaches the model.

    Raises:
        UsageError: there is no such command, or its arguments are wrong.
        ServerError: the command had to ask the server, and could not.
    """
    name, argument = [*text.removeprefix(PREFIX).split(maxsplit=1), "", ""][:2]
    command = COMMANDS_BY_NAME.get(name)
    if command is None:
        raise UsageError(
            f"there is no command {one_line(PREFIX + name)!r}: /help lists them; "
            "to send it as a message, begin it with a space"
        )
    if argument and not command.arguments:
        raise UsageError(f"{command.usage} takes nothing after it")
    return command.run(session, argument.strip())
