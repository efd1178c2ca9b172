"""roles of keys, quotas of accounts, the audit log"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
works_from = "0001"

_QUOTAS = ("trainings", "queued_tasks", "stored_bytes", "requests_per_minute")
_TEXTS = ("role", "action", "kind", "name", "outcome")


def _id(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=nullable)


def upgrade() -> None:
    op.add_column("keys", sa.Column("role", sa.Text(), nullable=False, server_default="train"))
    op.add_column("tasks", sa.Column("result_bytes", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_tasks_results",
        "tasks",
        ["account_id", "result_bytes"],
        sqlite_where=sa.text("result_bytes IS NOT NULL AND cleaned_at IS NULL"),
        postgresql_where=sa.text("result_bytes IS NOT NULL AND cleaned_at IS NULL"),
    )
    op.create_index(
        "ix_tasks_open_account",
        "tasks",
        ["account_id", "kind", "id"],
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "quotas",
        _id("account_id"),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in _QUOTAS),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_quotas_account_id_accounts")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_quotas")),
    )
    op.create_table(
        "audit",
        _id("id"),
        sa.Column("at", sa.Double(), nullable=False),
        _id("account_id", nullable=True),
        _id("key_id", nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_audit_account_id_accounts")),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name=op.f("fk_audit_key_id_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_account_id_id", "audit", ["account_id", "id"])
    op.create_index("ix_audit_at", "audit", ["at"])
