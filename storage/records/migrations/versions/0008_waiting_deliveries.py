"""deliveries that wait, by the webhook that they wait for"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
works_from = "0001"


def upgrade() -> None:
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["webhook_id", "due_at", "id"],
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
