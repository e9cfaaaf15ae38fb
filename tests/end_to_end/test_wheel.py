"""The wheel, installed into an empty environment, serves the starter model that it carries."""

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx2
import pytest

from support.live_server import LiveServer, free_port, stop, wait_until

ROOT = Path(__file__).parents[2]


def build(folder: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `python -m build` makes it: from the source archive, where links are no more."""
    return build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_the_three_packages_the_starter_and_the_detector(wheel: Path) -> None:
    assert_complete(wheel)


def test_a_wheel_built_straight_from_the_checkout_is_as_complete(tmp_path: Path) -> None:
    assert_complete(build(tmp_path, "--wheel"))


def assert_complete(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("turnwise_server", "turnwise_training", "turnwise_client"):
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    for file in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"):
        assert f"turnwise_server/starter/{file}" in names
    for file in ("safety.json", "model.safetensors", "linear/weights.safetensors", "README.md"):
        assert f"turnwise_server/safety/{file}" in names
    for file in ("turnwise_server/policies/default.yaml", "turnwise_training/policies/policy.schema.json"):
        assert file in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_installed_wheel_serves_the_starter(wheel: Path, tmp_path: Path) -> None:
    """The libraries come from this environment by a path entry; of Turnwise itself only the wheel is there."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False, symlinks=True)
    packages = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()))
    target = [
        "--prefix",
        str(home),
        "--no-deps",
        "--no-warn-script-location",
        "--ignore-installed",
        str(wheel),
    ]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", *target], check=True, capture_output=True
    )
    port = free_port()
    script = [str(home / "bin" / "python"), "-m", "turnwise_server.cli", "--port", str(port)]
    where = [str(home / "bin" / "python"), "-c", "import turnwise_server; print(turnwise_server.__file__)"]
    assert str(home) in subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    data = {"XDG_DATA_HOME": str(tmp_path / "data")}
    process = subprocess.Popen(script, cwd=tmp_path, stderr=subprocess.DEVNULL, env=os.environ | data)
    server = LiveServer(process, port, tmp_path / "none")
    try:
        wait_until(lambda: server.ready()[0] == 200 or process.poll() is not None, 120)
        models = httpx2.get(f"{server.url}/v1/models", timeout=10).json()
        assert [model["id"] for model in models["data"]] == ["starter"]
        hello = [{"role": "user", "content": "Hello!"}]
        reply = server.chat(model="starter", messages=hello, store=True)
        assert reply.status_code == 200
        assert reply.json()["choices"][0]["message"]["content"]
        stored = httpx2.get(f"{server.url}/v1/chat/completions", timeout=10).json()
        assert [item["id"] for item in stored["data"]] == [reply.json()["id"]]
    finally:
        stop(process)
