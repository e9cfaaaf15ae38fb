"""The `turnwise-server` command: parse first, import what is heavy later."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from turnwise_server.auth import hash_key, new_key
from turnwise_server.cli_flags import with_setting_flags
from turnwise_server.config import Settings
from turnwise_server.config_sources import CONFIG_VARIABLE, Configuration, load_configuration
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
audit = typer.Typer(help="What the policy decided.", no_args_is_help=True)
app.add_typer(audit, name="audit")


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


def _serve(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"TOML file with settings. [{CONFIG_VARIABLE}]", show_default=False
        ),
    ] = None,
    check_config: Annotated[
        bool,
        typer.Option(
            "--check-config", help="Say whether a server would start like this, and exit with 0 or 78."
        ),
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print the settings in effect as TOML, without secrets, and exit."
        ),
    ] = False,
    **flags: object,
) -> None:
    """Serve a chat model with the OpenAI API.

    Every flag can also be set by the environment variable beside it, or under its name in the TOML file. A flag goes
    before the variable, that before the file. Secrets have no flag.
    """
    if version:
        from turnwise_server import __version__

        typer.echo(__version__)
        return
    if context.invoked_subcommand is not None:
        return
    given = {name: value for name, value in flags.items() if value is not None}
    configuration = load_configuration(given, config)
    if check_config or print_config:
        report(configuration, is_check=check_config, is_print=print_config)
    else:
        run(configuration.settings)


def report(configuration: Configuration, *, is_check: bool, is_print: bool) -> None:
    """Check or print a configuration, and start nothing.

    Raises:
        ConfigurationError: a server would not start like this.
    """
    from turnwise_server.check_config import (
        check_access,
        check_models,
        check_policy,
        check_stores,
        check_traces,
    )
    from turnwise_server.config_print import as_toml

    if is_check:
        check_access(configuration.settings)
        check_stores(configuration.settings)
        check_traces(configuration.settings)
        check_policy(configuration.settings)
        for model in check_models(configuration.settings):
            typer.echo(
                f"not checked: {model!r} is no directory here; it may be on the Hugging Face hub", err=True
            )
    typer.echo(as_toml(configuration).rstrip() if is_print else "ok")


def run(settings: Settings) -> None:
    """Take the address, then load the model and serve.

    Raises:
        ConfigurationError: the server may not or cannot start like this.
    """
    from turnwise_server.check_config import check_access

    keys = check_access(settings)
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
    scope: Annotated[
        str | None,
        typer.Option(help="What the key may do, with commas: admin, safety:trusted, safety:override."),
    ] = None,
    refusal: Annotated[
        str | None, typer.Option(help="Where refusals stand in replies: content, field or both.")
    ] = None,
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
    words = {"scope": scope, "refusal": refusal, "rpm": rpm, "tpm": tpm, "concurrent": concurrent}
    given = [f"{word}={value}" for word, value in words.items() if value is not None]
    try:
        typer.echo(hash_key(key, " ".join([name, *given])).line())
    except ConfigurationError as error:
        raise ConfigurationError(f"the line for the key file {error}") from error


@audit.command("verify")
def audit_verify_command(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]", help="The newest file of the audit. Default: audit.jsonl in the data directory."
        ),
    ] = None,
    expect_last: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="A last hash noted earlier, which must still be in the chain."),
    ] = None,
) -> None:
    """Check that nothing in the audit was changed, and exit with 0; with 1 if it was, with 2 if it cannot be read."""
    from turnwise_server.moderation.audit.files import DEFAULT_NAME, audit_path
    from turnwise_server.moderation.audit.report import describe
    from turnwise_server.moderation.audit.verify import verify

    if expect_last is not None and not re.fullmatch("[0-9a-f]{64}", expect_last):
        raise typer.BadParameter("give the 64 hexadecimal digits that were noted", param_hint="--expect-last")
    try:
        checked = verify(path or audit_path(DEFAULT_NAME), expect_last)
    except OSError as error:
        typer.echo(f"turnwise-server: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(describe(checked))
    raise typer.Exit(1 if checked.fault else 0)


app.callback(invoke_without_command=True)(with_setting_flags(_serve))

if __name__ == "__main__":
    main()
