"""Names what a request was for by the pattern of its route: what logs, metrics and traces may show of an address."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

PROBES = frozenset({"/health", "/ready"})
"""What machines ask every few seconds to see whether the server is well."""

UNKNOWN = "(unknown)"


class Endpoints:
    """The routes of an application."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    def of(self, scope: Scope) -> str:
        """Return the pattern of the route that a request took, or would have, had no middleware refused it."""
        taken = scope.get("route")
        if isinstance(taken, Route):
            return taken.path_format
        matches = [(route.matches(scope)[0].value, route.path_format) for route in self._routes]
        # The wrong method of a known address is a better match than none.
        best, path = max(matches, key=lambda match: match[0])
        return UNKNOWN if best == Match.NONE.value else path
