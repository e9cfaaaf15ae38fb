"""The command table drives everything; each command does what its line in the table says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from support.scripted_openai import MODEL, scripted_openai, unused_url
from turnwise_client import conversation as talk
from turnwise_client.commands import COMMANDS, is_command, run_command
from turnwise_client.conversation import Reply
from turnwise_client.errors import UnreachableError, UsageError
from turnwise_client.http import ChatApi
from turnwise_client.prompt import CommandCompleter, open_history
from turnwise_client.session import ChatSession

DOCS = Path(__file__).parents[2] / "docs" / "terminal.md"


@pytest.fixture
def session() -> Iterator[ChatSession]:
    with scripted_openai() as server:
        api = ChatApi(server=server.url)
        yield ChatSession(api, system="Be kind.")
        api.close()


@pytest.fixture
def talked(session: ChatSession) -> ChatSession:
    session.ask("Hi")
    session.conversation = talk.answer(session.conversation, Reply("Hello!", "stop"))
    return session


def _complete(session: ChatSession, text: str) -> list[str]:
    return [
        found.text for found in CommandCompleter(session).get_completions(Document(text), CompleteEvent())
    ]


def test_the_table_holds_these_commands() -> None:
    names = [command.name for command in COMMANDS]

    assert names == ["help", "new", "retry", "undo", "system", "model", "set", "show", "export", "quit"]


def test_help_lists_every_command_with_its_summary(session: ChatSession) -> None:
    lines = list(run_command(session, "/help").says)

    for command in COMMANDS:
        assert any(line.startswith(command.usage) and line.endswith(command.summary) for line in lines)


def test_the_documentation_lists_every_command_with_its_summary() -> None:
    documented = re.findall(r"^\| `(/.*?)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE)

    assert [(usage.replace("\\|", "|"), summary) for usage, summary in documented] == [
        (command.usage, command.summary) for command in COMMANDS
    ]


def test_every_command_is_completed_from_its_first_letters(session: ChatSession) -> None:
    assert _complete(session, "/") == [command.name for command in COMMANDS]
    for command in COMMANDS:
        assert command.name in _complete(session, f"/{command.name[:2]}")


def test_first_arguments_are_completed(session: ChatSession) -> None:
    session.refresh_models()

    assert _complete(session, "/set t") == ["temperature"]
    assert _complete(session, "/export ") == ["md", "json"]
    assert _complete(session, "/model scripted") == [MODEL, "scripted-2"]
    assert _complete(session, "/export md x") == []
    assert _complete(session, "hello") == _complete(session, "/nope ") == _complete(session, "/he\n") == []


def test_every_command_runs_or_explains_what_it_needs(talked: ChatSession, tmp_path: Path) -> None:
    arguments = {"set": " seed 3", "export": f" md {tmp_path / 'talk.md'}"}
    for command in COMMANDS:
        if command.name != "undo":
            run_command(talked, f"/{command.name}{arguments.get(command.name, '')}")
            talked.ask("Hi")


@pytest.mark.parametrize("text", ["/nope", "/", "/HELP", "/helpme", "/etc/hosts\nsecond line", "//comment"])
def test_an_unknown_command_is_an_error_that_points_to_help(session: ChatSession, text: str) -> None:
    assert is_command(text)
    with pytest.raises(UsageError, match="/help lists them"):
        run_command(session, text)


def test_text_after_a_command_that_takes_none_is_not_lost_silently(session: ChatSession) -> None:
    with pytest.raises(UsageError, match="takes nothing"):
        run_command(session, "/new York is big")


def test_a_message_may_begin_with_a_slash_after_a_space() -> None:
    assert not is_command(" /etc/hosts")


def test_new_keeps_the_system_prompt(talked: ChatSession) -> None:
    run_command(talked, "/new")

    assert talked.conversation == talk.Conversation(system="Be kind.")


def test_undo_offers_the_text_again(talked: ChatSession) -> None:
    assert run_command(talked, "/undo").prefill == "Hi"
    assert talked.conversation.turns == ()
    with pytest.raises(UsageError, match="nothing has been said"):
        run_command(talked, "/undo")


def test_retry_asks_again_without_losing_the_reply_yet(talked: ChatSession) -> None:
    assert run_command(talked, "/retry").asks_again
    assert talked.conversation.last_reply == Reply("Hello!", "stop")
    assert talked.request().messages[-1] == {"role": "user", "content": "Hi"}


def test_system_is_shown_set_and_removed(session: ChatSession) -> None:
    assert run_command(session, "/system").says == ["System prompt: Be kind."]
    run_command(session, "/system Be brief.\nAlways.")
    assert session.conversation.system == "Be brief.\nAlways."
    run_command(session, "/system none")
    assert session.conversation.system is None


def test_model_lists_and_chooses(session: ChatSession) -> None:
    assert run_command(session, "/model scripted-2").says == ["Model: scripted-2"]
    assert run_command(session, "/model").says == [f"  {MODEL}", "* scripted-2"]
    with pytest.raises(UsageError, match=f"it has {MODEL}, scripted-2"):
        run_command(session, "/model gpt-9")
    assert session.model == "scripted-2"


def test_set_changes_the_next_request(talked: ChatSession) -> None:
    run_command(talked, "/set temperature 0.3")
    run_command(talked, "/set max_tokens 9")

    assert talked.request().sampling.as_fields() == {"temperature": 0.3, "max_tokens": 9}
    with pytest.raises(UsageError, match="names temperature, max_tokens, seed"):
        run_command(talked, "/set seed")


def test_show_names_server_model_settings_and_turns(talked: ChatSession) -> None:
    text = "\n".join(run_command(talked, "/show").says)

    assert f"server: {talked.api.server}" in text
    assert "temperature: default" in text
    assert "turns: 1" in text


def test_export_writes_a_file_whose_name_may_hold_spaces(talked: ChatSession, tmp_path: Path) -> None:
    path = tmp_path / "my talk.json"
    run_command(talked, f"/export json {path}")

    assert json.loads(path.read_text())["messages"][1] == {"role": "user", "content": "Hi"}
    with pytest.raises(UsageError, match=r"/export md\|json PATH"):
        run_command(talked, "/export md")


def test_a_command_that_needs_the_server_says_when_there_is_none() -> None:
    session = ChatSession(ChatApi(server=unused_url()))

    with pytest.raises(UnreachableError):
        run_command(session, "/model")
    session.api.close()


def test_history_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    open_history(path).append_string("two\nlines")

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.chmod(0o644)
    assert list(open_history(path).load_history_strings()) == ["two\nlines"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_history_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="no history is kept"):
        open_history(tmp_path / "file" / "history")
