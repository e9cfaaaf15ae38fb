"""Votes on stored replies in a database. Completions and responses delete the votes on them when they are deleted.

A vote may name either kind of reply, so no foreign key ties it to one: the row of the reply is locked while a vote on
it is written, and deleted before its votes are. A vote thus never outlives its reply, however the two meet.
"""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from turnwise_server.store.base import Vote
from turnwise_server.store.database import Database
from turnwise_server.store.tables import CompletionRow, FeedbackRow, ResponseRow


class SqlFeedbackStore:
    """A `FeedbackStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, owner: str, vote: Vote) -> Vote | None:
        """Keep a vote in place of an earlier one, and return the one that stands, if its reply is stored."""

        def write(session: Session) -> Vote | None:
            if not _lock_reply(session, owner, vote.object_id):
                return None
            key = (owner, vote.object_id, vote.choice)
            earlier = session.get(FeedbackRow, key, with_for_update=True)
            if earlier and vote.idempotency_key and earlier.idempotency_key == vote.idempotency_key:
                return _record(earlier)
            session.merge(FeedbackRow(owner=owner, **asdict(vote)))
            return vote

        return self._database.change(write, nothing=None)

    def votes(self, owner: str, object_id: str) -> list[Vote]:
        """Return the votes on a reply, by choice."""
        wanted = select(FeedbackRow).where(FeedbackRow.owner == owner, FeedbackRow.object_id == object_id)

        def read(session: Session) -> list[Vote]:
            return [_record(row) for row in session.scalars(wanted.order_by(FeedbackRow.choice))]

        nothing: list[Vote] = []
        return self._database.look_up(read, nothing=nothing)

    def delete(self, owner: str, object_id: str) -> None:
        """Delete the votes on a reply."""
        self._database.change(lambda session: delete_votes(session, owner, object_id), nothing=None)


def delete_votes(session: Session, owner: str, object_id: str) -> None:
    """Delete the votes on a reply, in the transaction that has just deleted the reply, if any has."""
    session.execute(delete(FeedbackRow).where(FeedbackRow.owner == owner, FeedbackRow.object_id == object_id))


def _lock_reply(session: Session, owner: str, object_id: str) -> bool:
    """Keep a reply from being deleted until the transaction ends, and say whether there is one."""
    return any(
        session.scalar(select(row.id).where(row.owner == owner, row.id == object_id).with_for_update())
        for row in (CompletionRow, ResponseRow)
    )


def _record(row: FeedbackRow) -> Vote:
    return Vote(
        object_id=row.object_id,
        choice=row.choice,
        rating=row.rating,
        reasons=tuple(row.reasons),
        comment=row.comment,
        model=row.model,
        system_fingerprint=row.system_fingerprint,
        created_at=row.created_at,
        idempotency_key=row.idempotency_key,
    )
