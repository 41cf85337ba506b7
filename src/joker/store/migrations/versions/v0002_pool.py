"""The pool of drafted jokes, who has heard them, and the joke of the day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the pool's columns and tables; all existing jokes have been told."""
    for column in (
        sa.Column("told", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("pool_key", sa.String(32)),
        sa.Column("quality", sa.Double, nullable=False, server_default=sa.text("0")),
        sa.Column("picked", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("jokes", column)
    op.create_index("jokes_pool_key", "jokes", ["pool_key"], unique=True)
    op.create_table(
        "heard",
        sa.Column("client", sa.String(32), primary_key=True),
        sa.Column(
            "joke_id",
            sa.String(12),
            sa.ForeignKey("jokes.id", ondelete="CASCADE"),
            primary_key=True,
        ),
    )
    op.create_index("heard_joke_id", "heard", ["joke_id"])
    op.create_table(
        "daily",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column(
            "joke_id",
            sa.String(12),
            sa.ForeignKey("jokes.id", ondelete="CASCADE"),
            nullable=False,
        ),
    )
    op.create_index("daily_joke_id", "daily", ["joke_id"])
