"""What must hold of the repository itself: documented, linked, pinned, layered, light to start."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = [
    ROOT / line
    for line in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
]
FILES = [path for path in TRACKED if path.is_file() and not path.is_symlink()]
MODULES = [path for path in FILES if path.suffix == ".py"]
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "begin the module with a docstring"


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_between_documents_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), (
                f"{relative(path)} links to {target}, which does not exist"
            )


def test_commands_in_the_readme_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"serve", "test"} <= commands <= targets


def test_every_dependency_has_an_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    pinned = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    names = {_name(requirement) for requirement in wanted}
    assert names <= pinned


def _name(requirement: str) -> str:
    return re.split(r"[<>=\[; ]", requirement)[0].lower().replace("_", "-")


def test_large_files_are_kept_to_the_models() -> None:
    large = {relative(path) for path in FILES if path.stat().st_size > 1_000_000}
    assert {name for name in large if not name.startswith("models/")} == set()


@pytest.mark.parametrize("package", ["turnwise_client", "turnwise_server", "turnwise_training"])
def test_help_is_shown_without_importing_torch(package: str) -> None:
    code = (
        f"import sys; from {package}.cli import main; sys.argv = ['x', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'openai'} & set(sys.modules)\nassert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Usage" in ended.stdout
