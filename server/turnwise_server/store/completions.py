"""Stored chat completions in a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from turnwise_server.store.base import CompletionQuery, StoredCompletion
from turnwise_server.store.database import Database
from turnwise_server.store.feedback import delete_votes
from turnwise_server.store.tables import CompletionRow, MetadataRow

MAX_PAGE_BYTES = 16 * 1024 * 1024
"""A page ends when its bodies reach this size, however many completions were asked for."""

ROWS_AT_ONCE = 8


class SqlCompletionStore:
    """A `CompletionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self) -> None:
        """Raise StoreError if nothing can be stored now."""
        self._database.check()

    def save(self, owner: str, completion: StoredCompletion, messages: Sequence[str]) -> None:
        """Keep a completion and the messages it replied to."""

        def insert(session: Session) -> None:
            session.add(
                CompletionRow(
                    owner=owner,
                    id=completion.id,
                    model=completion.model,
                    body=completion.body,
                    messages="\n".join(messages),
                    pairs=_rows(completion.metadata),
                )
            )

        self._database.add(insert)

    def get(self, owner: str, completion_id: str) -> StoredCompletion | None:
        """Return a completion, if there is one."""

        def read(session: Session) -> StoredCompletion | None:
            row = session.get(CompletionRow, (owner, completion_id))
            return _record(row) if row else None

        return self._database.look_up(read, nothing=None)

    def messages(self, owner: str, completion_id: str) -> list[str] | None:
        """Return the messages that a completion replied to, if there is one."""
        wanted = select(CompletionRow.messages).where(
            CompletionRow.owner == owner, CompletionRow.id == completion_id
        )
        found = self._database.look_up(lambda session: session.scalar(wanted), nothing=None)
        return None if found is None else found.split("\n")

    def page(self, owner: str, query: CompletionQuery) -> tuple[list[StoredCompletion], bool]:
        """Return completions and whether there are more."""

        def read(session: Session) -> tuple[list[StoredCompletion], bool]:
            found: list[StoredCompletion] = []
            size = 0
            with session.scalars(_select(owner, query).limit(query.limit + 1)) as rows:
                for row in rows.yield_per(ROWS_AT_ONCE):
                    size += len(row.body)
                    if len(found) == query.limit or (found and size > MAX_PAGE_BYTES):
                        return found, True
                    found.append(_record(row))
            return found, False

        nothing: tuple[list[StoredCompletion], bool] = ([], False)
        return self._database.look_up(read, nothing=nothing)

    def set_metadata(
        self, owner: str, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion | None:
        """Replace the metadata of a completion and return it, if there is one."""

        def write(session: Session) -> StoredCompletion | None:
            row = session.get(CompletionRow, (owner, completion_id), with_for_update=True)
            if row is None:
                return None
            row.pairs = _rows(metadata)
            return _record(row)

        return self._database.change(write, nothing=None)

    def delete(self, owner: str, completion_id: str) -> bool:
        """Delete a completion with the votes on it, and say whether there was one."""
        found = delete(CompletionRow).where(CompletionRow.owner == owner, CompletionRow.id == completion_id)
        deleted = found.returning(CompletionRow.id)

        def write(session: Session) -> bool:
            if session.scalar(deleted) is None:
                return False
            delete_votes(session, owner, completion_id)
            return True

        return self._database.change(write, nothing=False)


def _select(owner: str, query: CompletionQuery) -> Select[CompletionRow]:
    row = CompletionRow
    chosen = select(row).where(row.owner == owner)
    if query.after is not None:
        chosen = chosen.where(row.id > query.after if query.order == "asc" else row.id < query.after)
    if query.model is not None:
        chosen = chosen.where(row.model == query.model)
    for key, value in query.metadata.items():
        chosen = chosen.where(row.pairs.any((MetadataRow.key == key) & (MetadataRow.value == value)))
    return chosen.order_by(row.id if query.order == "asc" else row.id.desc())


def _rows(metadata: Mapping[str, str]) -> dict[str, MetadataRow]:
    return {key: MetadataRow(key=key, value=value) for key, value in metadata.items()}


def _record(row: CompletionRow) -> StoredCompletion:
    metadata = {key: pair.value for key, pair in row.pairs.items()}
    return StoredCompletion(id=row.id, model=row.model, body=row.body, metadata=metadata)
