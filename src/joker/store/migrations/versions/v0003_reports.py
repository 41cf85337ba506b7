"""An index of the reported jokes, which the metrics count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the index; it is small, because few jokes are reported."""
    few = sa.text("report > 0")
    op.create_index("jokes_reported", "jokes", ["report"], sqlite_where=few, postgresql_where=few)
