"""Runs migrations on the connection that `storage.records.migration.upgrade` opened."""

from alembic import context

from storage.records.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
