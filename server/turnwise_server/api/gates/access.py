"""Decides who may come in: no foreign web pages on a loopback server, and a key on every route but two."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from turnwise_server.api.errors import (
    ApiError,
    ErrorReply,
    insufficient_scope,
    invalid_api_key,
    invalid_host,
    shorten,
)
from turnwise_server.api.services import services_of
from turnwise_server.api.telemetry.endpoints import PROBES
from turnwise_server.api.telemetry.request_log import record_of, refuse
from turnwise_server.auth import KeyRecord, KeyRing

OPEN_PATHS = PROBES
"""The only paths that never need a key: what probes ask."""


class HostGate:
    """ASGI middleware for servers on a loopback address, against web pages that reach it through the browser.

    A page can call a local server under a name of its own that resolves to 127.0.0.1 (DNS rebinding): its Host
    header gives it away. It can also post blindly to the right address: its Origin header gives that away, unless
    it is one of `allowed_origins`.
    """

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Iterable[str], allowed_origins: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refuse(refusal, scope, send)

    def _refusal(self, scope: Scope) -> ErrorReply | None:
        host = _header(scope, b"host")
        if host and not self._is_allowed(f"//{host}"):
            return invalid_host(
                f"The host name {shorten(host)!r} is not one of this server's. Use http://127.0.0.1, or start the "
                "server with --allowed-hosts.",
                "invalid_host",
            )
        origin = _header(scope, b"origin")
        is_web_page = origin == "null" or origin.startswith(("http://", "https://"))
        if is_web_page and origin not in self._allowed_origins and not self._is_allowed(origin):
            return invalid_host(
                f"Web pages of {shorten(origin)!r} may not use this server. If they are yours, start it with "
                "--cors-allowed-origins.",
                "invalid_origin",
            )
        return None

    def _is_allowed(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return False
        if host in self._allowed or host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


class KeyGate:
    """ASGI middleware that lets nobody in without a key, once there are keys."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._keys or _is_open(scope):
            await self._app(scope, receive, send)
            return
        key_record = self._find(scope)
        if key_record is None:
            is_missing = not (_header(scope, b"authorization") or _header(scope, b"x-api-key"))
            await refuse(invalid_api_key(is_missing=is_missing), scope, send)
            return
        record_of(scope).key = key_record
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> KeyRecord | None:
        """Look where OpenAI's clients put the key, then where Anthropic's do."""
        scheme, _, token = _header(scope, b"authorization").partition(" ")
        found = self._keys.find(token.strip()) if scheme.lower() == "bearer" else None
        return found or self._keys.find(_header(scope, b"x-api-key").strip())


def require_scope(request: Request, scope: str) -> None:
    """Let only keys with `scope` go on. Where no keys are set, only who reaches a loopback server may.

    Raises:
        ApiError: 403 insufficient_scope.
    """
    key = record_of(request.scope).key
    if key is None and not services_of(request).settings.is_loopback:
        raise ApiError(insufficient_scope(scope, has_keys=False))
    if key is not None and scope not in key.scopes:
        raise ApiError(insufficient_scope(scope, has_keys=True))


def _is_open(scope: Scope) -> bool:
    """Preflight requests cannot carry a key, and probes should not have one."""
    return scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS"


def _header(scope: Scope, name: bytes) -> str:
    value = next((value for key, value in scope["headers"] if key == name), b"")
    return str(value.decode("utf-8", "surrogateescape"))
