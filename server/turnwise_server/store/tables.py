"""The tables. `migrations/` makes them; a test holds the two together."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, attribute_keyed_dict, mapped_column, relationship

OBJECT_ID = String().with_variant(String(collation="C"), "postgresql")
"""Ids are compared byte by byte, as SQLite does by itself: their order is the order of lists."""

ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only if the column is of this very type."""


class Base(DeclarativeBase):
    """All tables."""


class CompletionRow(Base):
    """A stored chat completion."""

    __tablename__ = "chat_completions"

    owner: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(OBJECT_ID, primary_key=True)
    model: Mapped[str]
    body: Mapped[str]
    messages: Mapped[str] = mapped_column(deferred=True)
    """One JSON object a line."""
    pairs: Mapped[dict[str, MetadataRow]] = relationship(
        collection_class=attribute_keyed_dict("key"), cascade="all, delete-orphan", lazy="selectin"
    )


class MetadataRow(Base):
    """A pair of a completion's metadata, in a table of its own so that lists can filter by any key."""

    __tablename__ = "chat_completion_metadata"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner", "completion_id"], ["chat_completions.owner", "chat_completions.id"], ondelete="CASCADE"
        ),
        Index("ix_chat_completion_metadata_pair", "owner", "key", "value"),
    )

    owner: Mapped[str] = mapped_column(primary_key=True)
    completion_id: Mapped[str] = mapped_column(OBJECT_ID, primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ResponseRow(Base):
    """A response, and what it added to the conversation of its parent."""

    __tablename__ = "responses"
    __table_args__ = (
        UniqueConstraint("owner", "id", name="uq_responses_owner_id"),
        # Finds what has expired, and counts what there is without a look at the texts.
        Index("ix_responses_expires_at_size", "expires_at", "size"),
    )

    number: Mapped[int] = mapped_column(ROW_NUMBER, primary_key=True)
    """Grows with every save; a parent's is smaller than its children's."""
    parent: Mapped[int | None] = mapped_column(ForeignKey("responses.number"), index=True)
    expires_at: Mapped[float | None] = mapped_column(Double)
    """In seconds since 1970."""
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes of the texts below."""
    owner: Mapped[str]
    id: Mapped[str] = mapped_column(OBJECT_ID)
    messages: Mapped[str]
    """One JSON object a line."""
    body: Mapped[str]
    input_items: Mapped[str]


class FeedbackRow(Base):
    """A vote on one choice of a stored reply, be it a chat completion or a response."""

    __tablename__ = "feedback"

    owner: Mapped[str] = mapped_column(primary_key=True)
    object_id: Mapped[str] = mapped_column(OBJECT_ID, primary_key=True)
    choice: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rating: Mapped[Literal["up", "down"]] = mapped_column(String)
    reasons: Mapped[list[str]] = mapped_column(JSON)
    comment: Mapped[str | None]
    model: Mapped[str]
    system_fingerprint: Mapped[str | None]
    created_at: Mapped[int] = mapped_column(BigInteger)
    """In seconds since 1970."""
    idempotency_key: Mapped[str | None]
