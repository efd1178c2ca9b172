"""what a service says of its model"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
works_from = "0001"


def upgrade() -> None:
    op.add_column("services", sa.Column("model", sa.JSON(), nullable=False, server_default="{}"))
