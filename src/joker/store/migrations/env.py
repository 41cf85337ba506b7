"""Runs migrations on the connection that `joker.store.database` opened."""

from __future__ import annotations

from alembic import context

from joker.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
