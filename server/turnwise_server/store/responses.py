"""Responses and their conversations in a database, kept for ever or, in memory, for a time and up to a size.

A row holds what its response added to the conversation and points to its parent, so a conversation is one recursive
query. Deleting a row hands its messages down to the rows that continue it: a conversation never has a hole. As that
changes rows along a chain, the writes of one owner take turns; row locks taken from both ends would meet in a deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session, aliased

from turnwise_server.store.base import StoredResponse
from turnwise_server.store.database import Database, take_turns
from turnwise_server.store.feedback import delete_votes
from turnwise_server.store.tables import ResponseRow

EXPIRED_AT_ONCE = 100
"""A save clears away at most this many expired responses, so that none takes long."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long responses are kept, and how many: the oldest go first."""

    ttl_s: float
    max_responses: int
    max_bytes: int


class SqlResponseStore:
    """A `ResponseStore`; without a `retention` responses stay until they are deleted."""

    def __init__(self, database: Database, retention: Retention | None = None) -> None:
        self._database = database
        self._retention = retention

    def save(
        self,
        owner: str,
        response: StoredResponse,
        *,
        messages: Sequence[str],
        previous_id: str | None = None,
        history: Sequence[str] = (),
    ) -> None:
        """Keep a response and the messages it added to its conversation."""

        def insert(session: Session) -> None:
            take_turns(session, owner)
            parent = None if previous_id is None else session.scalar(_number(owner, previous_id))
            added = "\n".join(messages if parent is not None else [*history, *messages])
            row = ResponseRow(
                parent=parent,
                expires_at=None if self._retention is None else time.time() + self._retention.ttl_s,
                size=_bytes(response.body, response.input_items, added),
                owner=owner,
                id=response.id,
                messages=added,
                body=response.body,
                input_items=response.input_items,
            )
            session.add(row)
            if self._retention is not None:
                session.flush()
                _clear_away(session, self._retention)

        self._database.add(insert)

    def update(self, owner: str, response_id: str, *, body: str, new_messages: Sequence[str] = ()) -> bool:
        """Replace the body of a response, add messages to its conversation, and say whether there is one."""

        def write(session: Session) -> bool:
            take_turns(session, owner)
            row = session.scalar(select(ResponseRow).where(*_is(owner, response_id)))
            if row is None:
                return False
            row.body = body
            row.messages = _join(row.messages, "\n".join(new_messages))
            row.size = _bytes(row.body, row.input_items, row.messages)
            return True

        return self._database.change(write, nothing=False)

    def get(self, owner: str, response_id: str) -> StoredResponse | None:
        """Return a response, if there is one."""
        wanted = select(ResponseRow.id, ResponseRow.body, ResponseRow.input_items).where(
            *_is(owner, response_id)
        )
        found = self._database.look_up(lambda session: session.execute(wanted).one_or_none(), nothing=None)
        return None if found is None else StoredResponse(*found)

    def conversation(self, owner: str, response_id: str) -> list[str] | None:
        """Return every message up to and with a response, oldest first, if there is one."""
        columns = (ResponseRow.number, ResponseRow.parent, ResponseRow.messages)
        chain = select(*columns).where(*_is(owner, response_id)).cte(recursive=True)
        parent = aliased(ResponseRow)
        chain = chain.union_all(
            select(parent.number, parent.parent, parent.messages).join(chain, parent.number == chain.c.parent)
        )
        wanted = select(chain.c.messages).order_by(chain.c.number)
        nothing: list[str] = []
        turns = self._database.look_up(lambda session: list(session.scalars(wanted)), nothing=nothing)
        return [line for turn in turns for line in turn.split("\n") if line] if turns else None

    def delete(self, owner: str, response_id: str) -> bool:
        """Delete a response with the votes on it, and say whether there was one."""

        def write(session: Session) -> bool:
            take_turns(session, owner)
            row = session.scalar(select(ResponseRow).where(*_is(owner, response_id)))
            if row is None:
                return False
            _remove(session, row)
            delete_votes(session, owner, response_id)
            return True

        return self._database.change(write, nothing=False)


def _is(owner: str, response_id: str) -> tuple[ColumnElement[bool], ...]:
    is_alive = or_(ResponseRow.expires_at.is_(None), ResponseRow.expires_at > time.time())
    return ResponseRow.owner == owner, ResponseRow.id == response_id, is_alive


def _number(owner: str, response_id: str) -> Select[int]:
    return select(ResponseRow.number).where(*_is(owner, response_id))


def _remove(session: Session, row: ResponseRow) -> int:
    """Delete a row, hand its messages down to its children, and return how many bytes that freed."""
    children = session.scalars(select(ResponseRow).where(ResponseRow.parent == row.number)).all()
    freed = row.size
    for child in children:
        before = child.size
        child.parent = row.parent
        child.messages = _join(row.messages, child.messages)
        child.size = _bytes(child.body, child.input_items, child.messages)
        freed -= child.size - before
    session.flush()
    session.delete(row)
    session.flush()
    return freed


def _clear_away(session: Session, retention: Retention) -> None:
    """Remove what has expired, the newest first, then the oldest until the rest is within bounds."""
    expired = select(ResponseRow).where(ResponseRow.expires_at <= time.time())
    for row in session.scalars(expired.order_by(ResponseRow.number.desc()).limit(EXPIRED_AT_ONCE)).all():
        _remove(session, row)
    count, size = session.execute(select(func.count(), func.coalesce(func.sum(ResponseRow.size), 0))).one()
    while count > retention.max_responses or size > retention.max_bytes:
        oldest = session.scalars(select(ResponseRow).order_by(ResponseRow.number).limit(1)).one()
        size -= _remove(session, oldest)
        count -= 1


def _join(*texts: str) -> str:
    return "\n".join(text for text in texts if text)


def _bytes(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)
