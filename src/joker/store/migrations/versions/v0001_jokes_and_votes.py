"""Jokes and votes."""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables and the salt."""
    op.create_table(
        "jokes",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("categories", sa.Text, nullable=False),
        sa.Column("safe", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("up", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("down", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("report", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("rating", sa.Double, nullable=False, server_default=sa.text("0")),
    )
    op.create_index("jokes_created_at", "jokes", ["created_at"])
    op.create_index("jokes_rating", "jokes", ["rating"])
    op.create_table(
        "votes",
        sa.Column(
            "joke_id",
            sa.String(12),
            sa.ForeignKey("jokes.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("client", sa.String(32), primary_key=True),
        sa.Column("vote", sa.String(6), nullable=False),
        sa.Column("voted_at", sa.Double, nullable=False),
    )
    op.create_index("votes_voted_at", "votes", ["voted_at"])
    salt = op.create_table(
        "salt",
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.bulk_insert(salt, [{"value": secrets.token_bytes(32), "created_at": time.time()}])
