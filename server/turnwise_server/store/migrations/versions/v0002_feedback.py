"""Votes on stored replies."""

import sqlalchemy as sa
from alembic import op

from turnwise_server.store.tables import OBJECT_ID

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table of votes."""
    op.create_table(
        "feedback",
        sa.Column("owner", sa.String(), primary_key=True),
        sa.Column("object_id", OBJECT_ID, primary_key=True),
        sa.Column("choice", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("rating", sa.String(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("comment", sa.String()),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("system_fingerprint", sa.String()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String()),
    )
