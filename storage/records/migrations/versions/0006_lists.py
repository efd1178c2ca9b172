"""lists of tasks, services and data sets that read no more than they tell"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
works_from = "0001"


def upgrade() -> None:
    op.create_index("ix_tasks_account_id_kind_id", "tasks", ["account_id", "kind", "id"])
    op.create_index("ix_tasks_account_id_service_id_id", "tasks", ["account_id", "service_id", "id"])
    op.create_index("ix_tasks_account_id_created_at_id", "tasks", ["account_id", "created_at", "id"])
    for table in ("services", "datasets"):
        op.create_index(
            f"ix_{table}_account_id_id",
            table,
            ["account_id", "id"],
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )
