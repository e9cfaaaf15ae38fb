"""llm, Simon Willison's command: prompts, conversations, schemas, tools, usage and errors."""

import json
import subprocess

import pytest

from foreign_clients.conftest import KEY, LIMITED_KEY, Servers
from foreign_clients.conversation import BEGINNING
from support.foreign_suites import ForeignClients
from support.phrase_policy import REFUSAL

COUNTED = "One, two, three, four, five."
WEATHER = 'def get_weather(city: str) -> str:\n    """Say the weather."""\n    return "22 degrees"\n'


class Llm:
    """The command with its models configured."""

    def __init__(self, clients: ForeignClients, servers: Servers) -> None:
        self._clients = clients
        self._user_path = clients.folder / "llm"
        self._user_path.mkdir()
        models = [
            _model("turnwise", servers.scripted, supports_schema=True, supports_tools=True),
            _model("turnwise-text", servers.scripted, completion=True),
            _model("turnwise-other", servers.scripted, model_name="other"),
            _model("turnwise-busy", servers.busy),
        ]
        (self._user_path / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
        (self._user_path / "keys.json").write_text(json.dumps({"turnwise": KEY}))

    def __call__(self, *arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
        return self._clients.run(["llm", *arguments], piped=piped, LLM_USER_PATH=str(self._user_path))

    def says(self, *arguments: str) -> str:
        """What a command that succeeds prints."""
        ended = self(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()


def _model(model_id: str, url: str, *, model_name: str = "test", **more: bool) -> dict[str, object]:
    named = {"model_id": model_id, "model_name": model_name, "api_base": url, "api_key_name": "turnwise"}
    return {**named, **more}


@pytest.fixture
def llm(python_clients: ForeignClients, servers: Servers) -> Llm:
    return Llm(python_clients, servers)


def test_a_prompt_is_answered_and_its_usage_told(llm: Llm) -> None:
    ended = llm("-m", "turnwise", "-u", "Count to five.")
    assert ended.stdout.strip() == COUNTED
    assert "input" in ended.stderr
    assert llm.says("-m", "turnwise", "--no-stream", "Count to five.") == COUNTED


def test_a_conversation_goes_on(llm: Llm) -> None:
    llm.says("-m", "turnwise", "Count to five.")
    assert json.loads(llm.says("-c", "Who is Ada?"))["name"] == "Ada"
    logged = json.loads(llm.says("logs", "--json", "-n", "2"))
    assert logged[0]["input_tokens"] < logged[1]["input_tokens"]


def test_the_chat_of_the_terminal_is_answered(llm: Llm) -> None:
    ended = llm("chat", "-m", "turnwise", piped="Count to five.\nWho is Ada?\nquit\n")
    assert COUNTED in ended.stdout
    assert '"Ada"' in ended.stdout


def test_a_schema_gives_json(llm: Llm) -> None:
    said = llm.says("-m", "turnwise", "--schema", "name str, age int", "Who is Ada?")
    assert json.loads(said) == {"name": "Ada", "age": 36}


def test_tools_are_called_and_answered(llm: Llm) -> None:
    said = llm.says("-m", "turnwise", "--functions", WEATHER, "Weather in Paris and Rome?")
    assert said == "It is 22 degrees there."


def test_a_text_is_continued(llm: Llm) -> None:
    assert llm.says("-m", "turnwise-text", "-o", "max_tokens", "100", "Count to five.") == COUNTED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "turnwise", "--key", "wrong"), "Incorrect API key provided"),
        (("-m", "turnwise", "--key", LIMITED_KEY), "Error code: 429"),
        (("-m", "turnwise", "-o", "logit_bias", '{"999999": 1}'), "Error code: 400"),
        (("-m", "turnwise-other"), "The model `other` does not exist"),
    ],
)
def test_errors_are_shown(llm: Llm, arguments: tuple[str, ...], message: str) -> None:
    ended = llm(*arguments, "hello")
    assert ended.returncode == 1
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_full_queue_is_told_after_the_retries(llm: Llm) -> None:
    ended = llm("-m", "turnwise-busy", "hello")
    assert ended.returncode == 1
    assert "Error code: 503" in ended.stderr


def test_a_refusal_is_shown_and_the_conversation_goes_on(llm: Llm) -> None:
    for options in ((), ("--no-stream",)):
        assert llm.says("-m", "turnwise", *options, "Where can I buy a zorb?") == REFUSAL
    assert llm.says("-c", "Count to five.") == COUNTED


def test_a_cut_answer_shows_nothing_that_was_refused(llm: Llm) -> None:
    assert llm.says("-m", "turnwise", "--no-stream", "Tell me about the day.") == REFUSAL
    assert llm.says("-m", "turnwise", "Tell me about the day.") == BEGINNING.strip()
