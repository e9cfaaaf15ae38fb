"""The `turnwise-server` command: parse first, import what is heavy later."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from turnwise_server.auth import hash_key, new_key
from turnwise_server.config import SECRET_FIELDS, Settings, flag_name, variable_name
from turnwise_server.config_sources import load_configuration
from turnwise_server.errors import ConfigurationError, TurnwiseError

EXIT_CONFIGURATION = 78
EXIT_FAILURE = 70
MIN_KEY_LENGTH = 16

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command; print what is wrong with the configuration in one line."""
    try:
        app()
    except ConfigurationError as error:
        sys.exit(_fail(error, EXIT_CONFIGURATION))
    except TurnwiseError as error:
        sys.exit(_fail(error, EXIT_FAILURE))


def _fail(error: TurnwiseError, exit_code: int) -> int:
    typer.echo(f"turnwise-server: {error}", err=True)
    return exit_code


def _serve(context: typer.Context, version: bool, **flags: object) -> None:
    """Serve a chat model with the OpenAI API.

    Every flag can also be set as an environment variable. API keys in plain text come by TURNWISE_API_KEYS only.
    """
    if version:
        from turnwise_server import __version__

        typer.echo(__version__)
        return
    if context.invoked_subcommand is None:
        run({name: value for name, value in flags.items() if value is not None})


def run(flags: dict[str, object]) -> None:
    """Check the settings, then load the model and serve.

    Raises:
        ConfigurationError: the server may not or cannot start like this.
    """
    settings = load_configuration(flags).settings
    from turnwise_server.auth import KeyRing

    keys = KeyRing.load(settings.api_keys_file, [key.get_secret_value() for key in settings.api_keys])
    if not settings.is_loopback and not keys and not settings.insecure:
        raise ConfigurationError(
            f"refusing to listen on {settings.host} without API keys, where others can reach it: make a key with "
            "`turnwise-server hash-key >> keys.txt` and pass --api-keys-file keys.txt, or pass --insecure"
        )
    from turnwise_server.listen import bind

    listener = bind(settings.host, settings.port)
    import asyncio

    from turnwise_server.log import configure_logging
    from turnwise_server.serve import serve

    configure_logging(settings.log_level)
    raise typer.Exit(asyncio.run(serve(settings, keys, listener)))


@app.command("hash-key")
def hash_key_command(
    name: Annotated[str, typer.Option(help="Who the key is for; a note in the key file.")] = "",
    scope: Annotated[str | None, typer.Option(help="admin: the key may replace models, too.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Most requests a minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Most tokens a minute, of prompts and replies.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Most requests at the same time.")] = None,
) -> None:
    """Read a key from standard input, or make one, and print its line for the key file."""
    key = "" if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key:
        key = new_key()
        typer.echo(f"The new key, shown only now: {key}", err=True)
    if len(key) < MIN_KEY_LENGTH:
        raise ConfigurationError(f"the key is too short to be safe: use at least {MIN_KEY_LENGTH} characters")
    words = {"scope": scope, "rpm": rpm, "tpm": tpm, "concurrent": concurrent}
    given = [f"{word}={value}" for word, value in words.items() if value is not None]
    try:
        typer.echo(hash_key(key, " ".join([name, *given])).line())
    except ConfigurationError as error:
        raise ConfigurationError(f"the line for the key file {error}") from error


def _option(field: str, info: FieldInfo) -> inspect.Parameter:
    """Return the flag of one setting. Its default stays None, so that the environment can speak."""
    shown = "" if info.default in (None, (), False) or field == "model" else f"; default: {info.default}"
    choices = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is Literal else ()
    option = typer.Option(
        flag_name(field),
        help=f"{info.description} [{variable_name(field)}{shown}]",
        metavar="|".join(choices) or None,
        show_default=False,
    )
    kind = Annotated[_flag_type(info.annotation) | None, option]  # type: ignore[valid-type]  # made at run time
    return inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _flag_type(annotation: Any) -> type:
    """Return what the flag's text is parsed as; the settings class checks the rest."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kind = next(option for option in options if option is not types.NoneType)
    return kind if kind in (bool, int, float) else str


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command one flag for each setting that is no secret."""
    own = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        inspect.Parameter(
            "version",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, typer.Option("--version", help="Print the version and exit.")],
        ),
    ]
    flags = [
        _option(field, info) for field, info in Settings.model_fields.items() if field not in SECRET_FIELDS
    ]
    parameters = [*own, *flags]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


app.callback(invoke_without_command=True)(_with_flags(_serve))

if __name__ == "__main__":
    main()
