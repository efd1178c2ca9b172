"""uploads that came in one request are over when their task is, whoever ends it"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
works_from = "0001"


def upgrade() -> None:
    op.add_column("dataset_uploads", sa.Column("is_whole", sa.Boolean(), nullable=False, server_default=sa.false()))
