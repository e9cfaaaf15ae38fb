"""Gives a command one flag for each setting that is no secret."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from pydantic.fields import FieldInfo

from turnwise_server.config import SECRET_FIELDS, Settings, flag_name, variable_name


def with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Put the flags in the place of the command's `**flags`, where typer looks for them."""
    *own, _flags = inspect.signature(command, eval_str=True).parameters.values()
    flags = [
        _option(field, info) for field, info in Settings.model_fields.items() if field not in SECRET_FIELDS
    ]
    parameters = [*own, *flags]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(field: str, info: FieldInfo) -> inspect.Parameter:
    """Return the flag of one setting. Its default stays None, so that the environment can speak."""
    shown = "" if info.default in (None, (), {}, False) or field == "model" else f"; default: {info.default}"
    choices = typing.get_args(info.annotation) if typing.get_origin(info.annotation) is Literal else ()
    flag = flag_name(field)
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if info.annotation is bool else flag,
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
