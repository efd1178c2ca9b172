"""data sets, their files, and uploads in parts"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
works_from = "0001"


def _id(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "datasets",
        _id("id"),
        _id("account_id"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_datasets_account_id_accounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_datasets_account_id_name",
        "datasets",
        ["account_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "dataset_files",
        _id("id"),
        _id("dataset_id"),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("added", sa.Integer(), nullable=True),
        sa.Column("removed", sa.Integer(), nullable=True),
        sa.Column("removed_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_files_dataset_id_datasets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_files")),
        sa.UniqueConstraint("key", name=op.f("uq_dataset_files_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_dataset_files_dataset_id_path",
        "dataset_files",
        ["dataset_id", "path"],
        unique=True,
        sqlite_where=sa.text("added IS NOT NULL AND removed IS NULL"),
        postgresql_where=sa.text("added IS NOT NULL AND removed IS NULL"),
    )
    op.create_index("ix_dataset_files_removed_at", "dataset_files", ["removed_at"])
    op.create_table(
        "dataset_uploads",
        _id("id"),
        _id("dataset_id"),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("unpack", sa.Boolean(), nullable=False),
        sa.Column("is_direct", sa.Boolean(), nullable=False),
        _id("task_id", nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_uploads_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_dataset_uploads_task_id_tasks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_uploads")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_dataset_uploads_dataset_id", "dataset_uploads", ["dataset_id"])
    op.create_table(
        "dataset_parts",
        _id("upload_id"),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["dataset_uploads.id"], name=op.f("fk_dataset_parts_upload_id_dataset_uploads")
        ),
        sa.PrimaryKeyConstraint("upload_id", "number", name=op.f("pk_dataset_parts")),
    )
