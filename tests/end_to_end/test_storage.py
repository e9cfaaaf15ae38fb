"""A real server that stores: killed without warning, started again, with all that it had acknowledged."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI

from support.fake_model import write_fake_model, write_script
from support.live_server import LiveServer, live_server
from support.postgres_server import postgres_server

CANARY = "a sentence that no log may hold"


@contextmanager
def storing_server(folder: Path, database_url: str) -> Iterator[tuple[LiveServer, OpenAI]]:
    model = write_fake_model(folder / "model")
    script = write_script(folder / "script.json", "Hello!")
    flags = ("--engine", "fake", "--fake-script", str(script), "--log-level", "debug")
    with (
        live_server(model, *flags, env={"TURNWISE_DATABASE_URL": database_url}) as server,
        OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        yield server, client


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store/server.db"
    else:
        with postgres_server() as postgres:
            yield postgres.new_database()


def test_a_killed_server_still_has_what_it_acknowledged_and_logged_none_of_it(
    tmp_path: Path, database_url: str
) -> None:
    with storing_server(tmp_path, database_url) as (server, client):
        whole = client.chat.completions.create(
            model="test",
            messages=[{"role": "user", "content": CANARY}],
            store=True,
            metadata={"note": CANARY},
        )
        chunks = client.chat.completions.create(
            model="test", messages=[{"role": "user", "content": CANARY}], store=True, stream=True
        )
        streamed = {chunk.id for chunk in chunks}.pop()
        stored = client.responses.create(model="test", input=CANARY, store=True)
        recent = client.responses.create(model="test", input=CANARY)
        server.process.kill()
        server.process.wait(10)
        assert CANARY not in server.log.read_text()
        assert CANARY not in json.dumps(server.log_lines())
    with storing_server(tmp_path, database_url) as (_, client):
        assert [item.id for item in client.chat.completions.list()] == [whole.id, streamed]
        assert client.chat.completions.retrieve(whole.id).metadata == {"note": CANARY}
        assert [message.content for message in client.chat.completions.messages.list(streamed)] == [CANARY]
        assert client.responses.retrieve(stored.id).output_text == "Hello!"
        continued = client.responses.create(model="test", input="Again.", previous_response_id=stored.id)
        assert continued.output_text == "Hello!"
        with pytest.raises(NotFoundError):
            client.responses.retrieve(recent.id)
