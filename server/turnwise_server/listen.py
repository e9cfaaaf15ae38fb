"""Takes the address to listen on before anything heavy is loaded, so that a wrong one is told at once."""

from __future__ import annotations

import errno
import socket

from turnwise_server.errors import ConfigurationError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, which does not listen yet.

    Raises:
        ConfigurationError: the address does not exist here, is taken, or is not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(host, port, error) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setblocking(False)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise cannot_listen(host, port, error) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    """Say why an address cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"port {port} of {host} is in use: stop the other program, or choose a port with --port"
        )
    return ConfigurationError(f"cannot listen on port {port} of {host!r}: {error.strerror or error}")
