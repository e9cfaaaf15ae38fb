"""Where the user's messages come from: an editable prompt in a terminal, or the lines of a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from platformdirs import user_state_path
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from turnwise_client.commands import COMMANDS, COMMANDS_BY_NAME, PREFIX, is_command
from turnwise_client.errors import UsageError
from turnwise_client.notices import status_line
from turnwise_client.output import Output, is_dumb_terminal
from turnwise_client.session import ChatSession

PROMPT = "> "
_CONTINUATION = "  "
_MENU_ROWS = 8
_STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse ansibrightblack",
        "prompt": "ansigreen bold",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit ansibrightblack",
        "completion-menu.meta.completion.current": "noinherit reverse",
    }
)


class LineSource(Protocol):
    """Gives the user's messages one by one."""

    def read(self, prefill: str, /) -> str:
        """Return the next message; `prefill` is offered for editing where that is possible.

        Raises:
            EOFError: there are no more.
            KeyboardInterrupt: Ctrl-C at an empty prompt.
        """
        ...


class PipedLines:
    """Every line of a pipe or file that is not blank."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def read(self, _prefill: str, /) -> str:
        for line in self._stream:
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            if text.strip():
                return text
        raise EOFError


class DumbPrompt:
    """A prompt for terminals that understand no escape sequences."""

    def read(self, _prefill: str, /) -> str:
        return input(PROMPT)


class EditablePrompt:
    """A prompt with several lines, history, completion and a bottom line."""

    def __init__(self, session: ChatSession, status: Callable[[], str], history: History) -> None:
        self._prompt: PromptSession[str] = PromptSession(
            [("class:prompt", PROMPT)],
            multiline=True,
            prompt_continuation=_CONTINUATION,
            bottom_toolbar=status,
            completer=CommandCompleter(session),
            complete_while_typing=Condition(self._is_typing_command),
            reserve_space_for_menu=_MENU_ROWS,
            enable_open_in_editor=True,
            history=history,
            key_bindings=_key_bindings(),
            style=_STYLE,
        )

    def read(self, prefill: str, /) -> str:
        return self._prompt.prompt(default=prefill)

    def _is_typing_command(self) -> bool:
        return is_command(self._prompt.default_buffer.text)


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()
    at_prompt = has_focus(DEFAULT_BUFFER)

    @bindings.add("enter", filter=at_prompt)
    def _send(event: KeyPressEvent) -> None:
        # More keys in the same read means a paste on a terminal without bracketed paste: its newlines must not send.
        if event.key_processor.input_queue:
            event.current_buffer.insert_text("\n")
        elif event.current_buffer.text.strip():
            event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter", filter=at_prompt)
    @bindings.add("c-j", filter=at_prompt)
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @bindings.add("c-c", filter=at_prompt)
    def _clear_or_interrupt(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset(append_to_history=True)
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return bindings


class CommandCompleter(Completer):
    """Completes commands and their first arguments; never touches messages."""

    def __init__(self, session: ChatSession) -> None:
        self._session = session

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 (prompt_toolkit's signature)
    ) -> Iterator[Completion]:
        text = document.text_before_cursor
        if not is_command(text) or "\n" in text:
            return
        name, space, argument = text.removeprefix(PREFIX).partition(" ")
        if not space:
            for command in COMMANDS:
                if command.name.startswith(name):
                    yield Completion(command.name, start_position=-len(name), display_meta=command.summary)
        elif name in COMMANDS_BY_NAME and " " not in argument:
            yield from _completions(COMMANDS_BY_NAME[name].words(self._session), argument)


def _completions(words: Iterable[str], typed: str) -> Iterator[Completion]:
    return (Completion(word, start_position=-len(typed)) for word in words if word.startswith(typed))


def history_path() -> Path:
    """Return where what was typed is kept."""
    return user_state_path("turnwise") / "history"


def open_history(path: Path) -> History:
    """Return the history kept in `path`, which only its owner may read.

    Raises:
        UsageError: the file cannot be kept there; the message says why.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
    except OSError as error:
        raise UsageError(f"no history is kept: cannot write {str(path)!r} ({error.strerror})") from error
    return FileHistory(str(path))


def line_editor(session: ChatSession, output: Output) -> LineSource:
    """Return the best prompt the terminal can have. Without a place to keep it, history ends with the session."""
    if is_dumb_terminal():
        return DumbPrompt()
    try:
        history = open_history(history_path())
    except UsageError as error:
        output.error(str(error))
        history = InMemoryHistory()
    return EditablePrompt(session, lambda: _status(session), history)


def _status(session: ChatSession) -> str:
    return status_line(
        model=session.model, context_length=session.context_length, reply=session.conversation.last_reply
    )
