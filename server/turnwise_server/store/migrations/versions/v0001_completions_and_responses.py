"""Stored chat completions with their metadata, and responses."""

import sqlalchemy as sa
from alembic import op

from turnwise_server.store.tables import OBJECT_ID, ROW_NUMBER

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "chat_completions",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("id", OBJECT_ID, primary_key=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("messages", sa.String(), nullable=False),
    )
    op.create_table(
        "chat_completion_metadata",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("completion_id", OBJECT_ID, primary_key=True),
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner", "completion_id"], ["chat_completions.owner", "chat_completions.id"], ondelete="CASCADE"
        ),
    )
    op.create_index("ix_chat_completion_metadata_pair", "chat_completion_metadata", ["owner", "key", "value"])
    op.create_table(
        "responses",
        sa.Column("number", ROW_NUMBER, primary_key=True),
        sa.Column("parent", ROW_NUMBER, sa.ForeignKey("responses.number")),
        sa.Column("expires_at", sa.Double()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("id", OBJECT_ID, nullable=False),
        sa.Column("messages", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("input_items", sa.String(), nullable=False),
        sa.UniqueConstraint("owner", "id", name="uq_responses_owner_id"),
    )
    op.create_index("ix_responses_parent", "responses", ["parent"])
    op.create_index("ix_responses_expires_at_size", "responses", ["expires_at", "size"])
