"""What happens to processes on a bad day: killed servers, killed engines, broken checkpoints."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx2
import pytest

from support.live_server import SERVER, LiveServer, free_port, is_gone, live_server, wait_until


def test_killing_the_server_leaves_no_engine_process(tiny_checkpoint: Path) -> None:
    with live_server(tiny_checkpoint) as server:
        engines = server.children()
        assert engines
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        wait_until(lambda: all(is_gone(engine) for engine in engines), 5)


def test_a_killed_engine_is_noticed_and_replaced(tiny_checkpoint: Path) -> None:
    with live_server(tiny_checkpoint) as server:
        engine = server.children()[0]
        engine.send_signal(signal.SIGSTOP)  # hold it, so that requests are in its hands when it dies
        with httpx2.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={
                "model": "test",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": True,
                "max_tokens": 200,
            },
            timeout=60,
        ) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: ")
            engine.send_signal(signal.SIGKILL)
            rest = "\n".join(lines)
        assert '"error":' in rest.replace('"error": ', '"error":')
        assert "[DONE]" not in rest
        seen = [server.ready()[0]]
        wait_until(lambda: seen.append(server.ready()[0]) or seen[-1] == 200, 60, 0.02)  # type: ignore[func-returns-value]
        assert 503 in seen, "/ready must fail while there is no engine"
        assert server.chat().status_code == 200
        assert server.children()[0].pid != engine.pid


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_exits_cleanly_and_takes_its_engine_along(
    tiny_checkpoint: Path, stop_signal: int
) -> None:
    with live_server(tiny_checkpoint) as server:
        engines = server.children()
        server.process.send_signal(stop_signal)
        assert server.process.wait(20) == 0
        assert all(is_gone(engine) for engine in engines)


def test_ctrl_c_in_a_terminal_lets_running_replies_finish(tiny_checkpoint: Path) -> None:
    """The terminal sends SIGINT to the whole process group; the engine must not die of it before the drain is over."""
    port = free_port()
    process = subprocess.Popen(
        [SERVER, "--model", str(tiny_checkpoint), "--port", str(port), "--model-name", "test"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    server = LiveServer(process, port, Path(os.devnull))
    try:
        wait_until(lambda: server.ready()[0] == 200, 120)
        body = {
            "model": "test",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 300,
            "logit_bias": {"0": -100, "2": -100},
        }
        with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
            lines = reply.iter_lines()
            next(lines)
            os.killpg(process.pid, signal.SIGINT)
            assert "data: [DONE]" in list(lines)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"config.json": None}, "config.json"),
        ({"config.json": b"{"}, "config.json"),
        ({"model.safetensors": None}, "safetensors"),
        ({"model.safetensors": b"\x08\0\0\0\0\0\0\0{}"}, "model.safetensors"),
        ({"tokenizer.json": None}, "tokenizer.json"),
        ({"tokenizer.json": b"not json"}, "tokenizer.json"),
        ({"chat_template.jinja": None}, "chat_template.jinja"),
    ],
)
def test_a_broken_checkpoint_fails_at_start_and_names_the_file(
    tiny_checkpoint: Path, tmp_path: Path, damage: dict[str, bytes | None], named: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    for name, content in damage.items():
        (broken / name).unlink()
        if content is not None:
            (broken / name).write_bytes(content)
    ended = subprocess.run(
        [SERVER, "--model", str(broken), "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode not in (0, -signal.SIGKILL)
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_model_directory_is_named(tmp_path: Path) -> None:
    ended = subprocess.run(
        [SERVER, "--model", str(tmp_path / "nowhere"), "--port", str(free_port())],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode != 0
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr
