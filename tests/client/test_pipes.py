"""`turnwise ask` and `turnwise chat` between pipes: what goes in, what comes out, and the exit status."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.scripted_openai import MODEL, Script, scripted_openai, unused_url
from support.turnwise_process import COMMAND, environment, turnwise

DOCS = Path(__file__).parents[2] / "docs" / "terminal.md"


def test_an_answer_is_raw_text_on_stdout_and_nothing_else(tmp_path: Path) -> None:
    with scripted_openai(Script(pieces=["**Grü", "ße** \x1b[0m", "漢字"])) as server:
        done = turnwise(["ask", "Say", "hello", "--server", server.url], home=tmp_path)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "**Grüße** \x1b[0m漢字\n"
    assert server.requests[0].messages == [("user", "Say hello")]
    assert server.requests[0].body["model"] == MODEL


def test_what_is_piped_in_is_added_below_the_prompt(tmp_path: Path) -> None:
    with scripted_openai() as server:
        turnwise(["ask", "Review:", "--server", server.url], piped="line 1\nline 2\n", home=tmp_path)
        turnwise(["ask", "--server", server.url], piped=b"caf\xe9", home=tmp_path)

    assert [seen.messages for seen in server.requests] == [
        [("user", "Review:\n\nline 1\nline 2\n")],
        [("user", "caf\ufffd")],
    ]


def test_options_and_environment_reach_the_request(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("tw-file\n")
    with scripted_openai() as server:
        arguments = [
            "ask",
            "Hi",
            "--system",
            "Be kind.",
            "--max-tokens",
            "5",
            "--api-key-file",
            str(key_file),
        ]
        done = turnwise(
            arguments,
            home=tmp_path,
            TURNWISE_SERVER=server.url,
            TURNWISE_CHAT_MODEL="scripted-2",
            TURNWISE_TEMPERATURE="0.5",
            TURNWISE_SEED="7",
            TURNWISE_API_KEY="tw-environment",
        )

    assert done.returncode == 0, done.stderr
    (seen,) = server.requests
    assert seen.messages == [("system", "Be kind."), ("user", "Hi")]
    assert {name: seen.body[name] for name in ("model", "temperature", "max_tokens", "seed")} == {
        "model": "scripted-2",
        "temperature": 0.5,
        "max_tokens": 5,
        "seed": 7,
    }
    assert seen.headers["authorization"] == "Bearer tw-file"


def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path) -> None:
    with scripted_openai() as server:
        done = turnwise(["ask", "Hi", "--server", server.url], home=tmp_path, http_proxy=unused_url())

    assert done.returncode == 0, done.stderr


def test_json_prints_the_whole_reply_object(tmp_path: Path) -> None:
    with scripted_openai(Script(pieces=["x\x9b\x1b", "漢"], finish_reason="length")) as server:
        done = turnwise(["ask", "--json", "Hi", "--server", server.url], home=tmp_path)

    reply = json.loads(done.stdout)
    assert reply["choices"][0]["message"]["content"] == "x\x9b\x1b漢"
    assert reply["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    assert "\x9b" not in done.stdout.decode()
    assert b"[cut by the length limit]" in done.stderr
    assert "stream" not in server.requests[0].body


def test_notices_about_the_reply_go_to_stderr(tmp_path: Path) -> None:
    script = Script(
        pieces=["I cannot help."],
        headers={"x-context-truncated": "2"},
        x_refusal={"stage": "input", "category": "weapons"},
    )
    with scripted_openai(script) as server:
        done = turnwise(["ask", "Hi", "--server", server.url], home=tmp_path)

    assert (done.returncode, done.stdout) == (0, b"I cannot help.\n")
    assert done.stderr.decode().splitlines() == [
        "[2 earlier messages no longer fit the context: the model did not see them]",
        "[refused by the server's policy: input/weapons]",
    ]


@pytest.mark.parametrize(
    ("script", "stdout", "stderr"),
    [
        (
            Script(pieces=["Half"], error={"message": "engine\ndied\x1b["}),
            "Half\n",
            "broke off: engine died␛[",
        ),
        (Script(pieces=["Half"], dies=True), "Half\n", "the connection to the server broke"),
        (
            Script(status=401, error={"message": "no"}),
            "",
            "wants an API key: set TURNWISE_API_KEY or --api-key-file",
        ),
        (
            Script(status=503, error={"message": "Queue full."}, headers={"retry-after": "4"}),
            "",
            "overloaded or not ready (Queue full): try again in 4 s",
        ),
    ],
)
def test_a_failing_server_is_one_line_and_status_1(
    tmp_path: Path, script: Script, stdout: str, stderr: str
) -> None:
    with scripted_openai(script) as server:
        done = turnwise(["ask", "Hi", "--server", server.url], home=tmp_path)

    assert (done.returncode, done.stdout.decode()) == (1, stdout)
    assert stderr in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_no_server_is_one_line_and_status_1(tmp_path: Path) -> None:
    url = unused_url()
    done = turnwise(["ask", "Hi", "--server", url], home=tmp_path)

    assert done.returncode == 1
    assert done.stderr.decode() == f"no server at {url}: start one with `make serve` or turnwise-server\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", "Hi", "--temperature", "9"],
        ["ask", "Hi", "--max-tokens", "0"],
        ["ask", "Hi", "--server", "ftp://x"],
        ["ask", "Hi", "--api-key-file", "/no/such/file"],
        ["ask", "Hi", "--api-key", "secret"],
        ["talk"],
    ],
)
def test_wrong_usage_is_status_2(tmp_path: Path, arguments: list[str]) -> None:
    done = turnwise(arguments, home=tmp_path)

    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


def _start_asking(url: str, home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "ask", "Hi", "--server", url],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
    )


def test_an_interrupt_closes_the_connection_and_is_status_130(tmp_path: Path) -> None:
    with scripted_openai(Script(pieces=["x"] * 5000, delay_s=0.02)) as server:
        process = _start_asking(server.url, tmp_path)
        assert process.stdout
        assert process.stdout.read(3) == b"xxx"
        process.send_signal(signal.SIGINT)

        assert server.requests[0].hung_up.wait(10)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"[interrupted]\n")


def test_a_reader_that_has_seen_enough_ends_the_reply_quietly(tmp_path: Path) -> None:
    with scripted_openai(Script(pieces=["line\n"] * 5000, delay_s=0.01)) as server:
        process = _start_asking(server.url, tmp_path)
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()

        assert server.requests[0].hung_up.wait(10)
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(timeout=60) == 0


def test_chat_answers_every_line_of_a_pipe_in_one_conversation(tmp_path: Path) -> None:
    with scripted_openai(Script(pieces=["One."]), Script(pieces=["Two.\n"])) as server:
        done = turnwise(
            ["chat", "--server", server.url], piped="first\n\n  \nsecond\r\n/new\nthird", home=tmp_path
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "One.\nTwo.\nA new conversation.\nTwo.\n"
    assert [seen.messages for seen in server.requests] == [
        [("user", "first")],
        [("user", "first"), ("assistant", "One."), ("user", "second")],
        [("user", "third")],
    ]


def test_words_that_were_taken_back_stay_out_of_the_conversation(tmp_path: Path) -> None:
    refused = Script(
        ("First ", "words"),
        finish_reason="content_filter",
        x_refusal={"stage": "output", "category": "weapons"},
        retraction="I cannot help.",
    )
    with scripted_openai(refused, Script(("Hello.",))) as server:
        done = turnwise(["chat", "--server", server.url], home=tmp_path, piped="one\ntwo\n")

    assert b"First words\n\nI cannot help.\nHello.\n" in done.stdout
    assert (
        b"[refused by the server's policy: output/weapons; what it said before is taken back]" in done.stderr
    )
    assert server.requests[1].messages == [
        ("user", "one"),
        ("assistant", "I cannot help."),
        ("user", "two"),
    ]


def test_chat_in_a_pipe_goes_on_after_errors_and_tells_them_in_its_status(tmp_path: Path) -> None:
    scripts = (Script(status=503, error={"message": "Busy"}), Script(pieces=["Here."]))
    with scripted_openai(*scripts) as server:
        done = turnwise(
            ["chat", "--server", server.url], piped="/nope\nfirst\nsecond\n/quit\nnever", home=tmp_path
        )

    assert (done.returncode, done.stdout) == (2, b"Here.\n")
    assert [seen.messages for seen in server.requests] == [[("user", "first")], [("user", "second")]]


def test_help_and_version_answer_without_heavy_imports(tmp_path: Path) -> None:
    program = (
        "import sys; from turnwise_client.cli import app\n"
        "try: app([sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'openai', 'httpx2', 'prompt_toolkit'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    for argument in ("--help", "--version"):
        command = [COMMAND[0], "-c", program, argument]
        done = subprocess.run(command, capture_output=True, timeout=60, env=environment(tmp_path))
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"turnwise" in done.stdout.lower()


def test_a_whole_chat_imports_neither_torch_nor_openai(tmp_path: Path) -> None:
    program = (
        "import sys; import turnwise_client.ask, turnwise_client.cli, turnwise_client.prompt, turnwise_client.repl\n"
        "sys.exit(str({'torch', 'transformers', 'openai', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", program], capture_output=True, timeout=60, env=environment(tmp_path)
    )

    assert done.stderr == b"set()\n"


@pytest.mark.parametrize("command", ["chat", "ask"])
def test_every_option_is_documented(tmp_path: Path, command: str) -> None:
    done = turnwise([command, "--help"], home=tmp_path, COLUMNS="200")
    found = set(re.findall(r"--[a-z-]+|TURNWISE_[A-Z_]+", done.stdout.decode())) - {"--help"}

    assert "--server" in found
    assert found <= set(re.findall(r"--[a-z-]+|TURNWISE_[A-Z_]+", DOCS.read_text()))
