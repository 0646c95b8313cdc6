"""Alembic's entry: runs the migrations on the connection that loop_attentive.migrate opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema=context.config.attributes["schema"],
)
context.run_migrations()
