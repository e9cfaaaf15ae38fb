"""Kinds of values that settings take besides numbers, words and paths: lists, secrets and origins of web pages."""

from __future__ import annotations

import re
import typing
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr, StringConstraints
from pydantic_settings import NoDecode

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?")
_NEEDLESS_PORT = re.compile(r"http://.*:80|https://.*:443")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _check_origin(text: str) -> str:
    """Accept an origin in the one form in which browsers send it."""
    if not _ORIGIN.fullmatch(text) or _NEEDLESS_PORT.fullmatch(text):
        raise ValueError(
            f"{text!r} is not the origin of a web page. Write each as browsers send it, such as https://chat.example "
            "or http://127.0.0.1:5173: scheme, host in lower case, the port unless it is the scheme's own, and "
            "nothing after it. There is no sign for all origins"
        )
    return text


def _split_pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(name.strip() and path.strip() for name, _, path in pairs):
        raise ValueError("write each as NAME=PATH, with commas between them")
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name is used twice")
    return {name: path.strip() for name, (_, _, path) in zip(names, pairs, strict=True)}


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
"""Names, separated by commas where they come as one text."""

NamedPaths = Annotated[
    dict[Annotated[str, StringConstraints(min_length=1)], Annotated[str, StringConstraints(min_length=1)]],
    NoDecode,
    BeforeValidator(_split_pairs),
]
"""Names and what they stand for; as one text, `NAME=PATH` with commas between them."""

Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_commas)]
"""Secrets, separated by commas where they come as one text."""

Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...], NoDecode, BeforeValidator(_split_commas)
]
"""Origins of web pages as the Fetch standard serialises them, separated by commas where they come as one text."""


def holds_secret(annotation: Any) -> bool:
    """Say whether a field of this type is a secret: whether there is a `SecretStr` in it."""
    return annotation is SecretStr or any(map(holds_secret, typing.get_args(annotation)))
