"""Runs the migrations inside the transaction of the caller (`storage.database.engine`)."""

from alembic import context

from storage.database.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
