"""files on their way count as stored; uploads whose links may still write are cleaned again"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
works_from = "0001"


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("dataset_files", sa.Column("upload_id", number, nullable=True))
    op.add_column("dataset_uploads", sa.Column("cleaned_at", sa.Double(), nullable=True))
    op.create_index(
        "ix_dataset_files_staged",
        "dataset_files",
        ["dataset_id", "upload_id"],
        sqlite_where=sa.text("added IS NULL"),
        postgresql_where=sa.text("added IS NULL"),
    )
    op.create_index("ix_repositories_account_id", "repositories", ["account_id"])
