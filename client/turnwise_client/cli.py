"""The `turnwise` command. Heavy imports wait inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from turnwise_client.errors import ClientError, ExitStatus
from turnwise_client.settings import DEFAULT_SERVER, MAX_TEMPERATURE, MIN_MAX_TOKENS

if TYPE_CHECKING:
    from turnwise_client.output import Output
    from turnwise_client.session import ChatSession

app = typer.Typer(
    name="turnwise",
    help="Talk to a Turnwise server, or to any other that speaks the OpenAI chat API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ServerOption = Annotated[
    str, typer.Option(envvar="TURNWISE_SERVER", metavar="URL", help="Address of the server.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        envvar="TURNWISE_CHAT_MODEL",
        metavar="ID",
        help="Model that answers; else the first the server lists.",
    ),
]
SystemOption = Annotated[
    str | None,
    typer.Option(envvar="TURNWISE_SYSTEM", metavar="TEXT", help="System prompt.", show_default=False),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        envvar="TURNWISE_TEMPERATURE", min=0, max=MAX_TEMPERATURE, help="0 always takes the likeliest token."
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(envvar="TURNWISE_MAX_TOKENS", min=MIN_MAX_TOKENS, help="Longest reply, in tokens."),
]
SeedOption = Annotated[
    int | None, typer.Option(envvar="TURNWISE_SEED", help="Makes replies repeatable on the same model.")
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TURNWISE_API_KEY_FILE",
        metavar="PATH",
        help="File with the API key; else TURNWISE_API_KEY is used. A key is never given as an argument.",
    ),
]
PlainOption = Annotated[bool, typer.Option("--plain", help="Show text as it comes, without markdown.")]


def main() -> None:
    """Run the command line; the exit status tells how it went (see `errors.ExitStatus`)."""
    for stream in (sys.stdout, sys.stderr):
        # Where the locale has no UTF-8, a character that cannot be written must not end the program.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    app()


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"turnwise {version('turnwise')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Carry the options that come before a command."""


@app.command()
def chat(
    server: ServerOption = DEFAULT_SERVER,
    model: ModelOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    api_key_file: KeyFileOption = None,
    plain: PlainOption = False,
) -> None:
    """Hold a conversation. Where standard input is not a terminal, answer each of its lines."""
    with _exit_statuses():
        session = _session(server, model, system, temperature, max_tokens, seed, api_key_file)
        raise typer.Exit(_chat(session, _output(is_plain=plain)))


@app.command()
def ask(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(help="What to ask; what is piped in is added below it.", show_default=False),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    model: ModelOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    api_key_file: KeyFileOption = None,
    plain: PlainOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply object.")] = False,
) -> None:
    """Ask once and print the answer, as plain text where standard output is not a terminal."""
    with _exit_statuses():
        from turnwise_client.ask import print_json_answer, read_prompt, stream_answer

        session = _session(server, model, system, temperature, max_tokens, seed, api_key_file)
        session.ask(read_prompt(prompt or (), sys.stdin.buffer, stdin_is_terminal=sys.stdin.isatty()))
        output = _output(is_plain=plain)
        raise typer.Exit(
            print_json_answer(session, output, sys.stdout) if as_json else stream_answer(session, output)
        )


def _session(
    server: str,
    model: str | None,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    seed: int | None,
    api_key_file: Path | None,
) -> ChatSession:
    from turnwise_client.http import ChatApi
    from turnwise_client.sanitise import valid_unicode
    from turnwise_client.session import ChatSession
    from turnwise_client.settings import Sampling, read_api_key, server_address

    api_key = read_api_key(api_key_file, os.environ.get("TURNWISE_API_KEY"))
    return ChatSession(
        ChatApi(server=server_address(server), api_key=api_key),
        model=model and valid_unicode(model),
        system=system and valid_unicode(system),
        sampling=Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed),
    )


def _output(*, is_plain: bool) -> Output:
    from turnwise_client.output import Output, output_mode

    return Output(stdout=sys.stdout, stderr=sys.stderr, mode=output_mode(sys.stdout, is_plain=is_plain))


def _chat(session: ChatSession, output: Output) -> ExitStatus:
    from turnwise_client.keyboard import tidy_up_when_terminated
    from turnwise_client.prompt import PipedLines, line_editor
    from turnwise_client.repl import ChatLoop

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return ChatLoop(session, PipedLines(sys.stdin.buffer), output, is_interactive=False).run()
    tidy_up_when_terminated()
    loop = ChatLoop(session, line_editor(session, output), output, is_interactive=True)
    loop.greet()
    return loop.run()


@contextmanager
def _exit_statuses() -> Iterator[None]:
    """Turn errors into one line and an exit status."""
    try:
        yield
    except ClientError as error:
        from turnwise_client.sanitise import for_terminal

        typer.echo(for_terminal(f"turnwise: {error}"), err=True)
        raise typer.Exit(error.exit_status) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(ExitStatus.INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read our output has seen enough. Python would complain when it flushes the dead pipe on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitStatus.OK) from error
