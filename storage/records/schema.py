"""The tables of the records. Times are seconds since the epoch by the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class now(FunctionElement[float]):
    """Seconds since the epoch by the clock of the database: the one clock that leases are compared by."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: Any, compiler: Any, **options: Any) -> str:
    # unixepoch('subsec') needs SQLite 3.42, which Python 3.11 need not bring.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **options: Any) -> str:
    return "(extract(epoch from clock_timestamp())::double precision)"


def ago(seconds: float) -> ColumnElement[float]:
    """The moment so many seconds before now, found out once for a whole statement.

    `now()` may be another one for each row, so PostgreSQL looks up no time that is compared with it in an index.
    """
    return select(now() - seconds).scalar_subquery()


REVISION = "0009"
"""The Alembic revision that these tables are the result of; a test holds the two together."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# sqlite_autoincrement everywhere: SQLite gives the number of a deleted row to the next one otherwise.
_Id = BigInteger().with_variant(Integer(), "sqlite")

accounts = Table(
    "accounts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False, default=now()),
    sqlite_autoincrement=True,
)

keys = Table(
    "keys",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    # The default is for programs of before, which know no roles, and for their keys.
    Column("role", Text, nullable=False, server_default="train"),
    Column("label", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False, default=now()),
    Column("revoked_at", Double),
    sqlite_autoincrement=True,
)

# What an account may use, where that is not what the settings say; NULL leaves it to them, 0 is no limit.
quotas = Table(
    "quotas",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), primary_key=True, autoincrement=False),
    Column("trainings", BigInteger),
    Column("queued_tasks", BigInteger),
    Column("stored_bytes", BigInteger),
    Column("requests_per_minute", BigInteger),
)

# Who did what. The account and the key are those of then; nothing here is ever changed, only swept when it is old.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("at", Double, nullable=False, default=now()),
    Column("account_id", ForeignKey("accounts.id")),
    Column("key_id", ForeignKey("keys.id")),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("trace", Text, nullable=False),
    Column("address", Text, nullable=False),
    Index("ix_audit_account_id_id", "account_id", "id"),
    Index("ix_audit_at", "at"),
    sqlite_autoincrement=True,
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("location", Text, nullable=False, unique=True),
    Column("version_counter", Integer, nullable=False, default=0),
    # The number of the version whose files lie in the data-root folder; the sweep repairs a lag.
    Column("exported_version", Integer, nullable=False, default=0),
    Column("export_until", Double),
    Column("created_at", Double, nullable=False, default=now()),
    Index("ix_repositories_account_id", "account_id"),
    sqlite_autoincrement=True,
)

services = Table(
    "services",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("mllib", Text, nullable=False),
    Column("mltype", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False),
    Column("parameters", JSON, nullable=False),
    # What trainings need of the `model` object of the creation request, besides the repository.
    Column("model", JSON, nullable=False, server_default="{}"),
    Column("job_counter", Integer, nullable=False, default=0),
    Column("created_at", Double, nullable=False, default=now()),
    Column("deleted_at", Double),
    Index(
        "uq_services_account_id_name",
        "account_id",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index("ix_services_repository_id", "repository_id"),
    Index(
        "ix_services_account_id_id",
        "account_id",
        "id",
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("service_id", ForeignKey("services.id")),
    Column("repository_id", ForeignKey("repositories.id")),
    Column("job", Integer),
    Column("spec", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("idempotency_key", Text),
    Column("request_digest", Text),
    Column("attempt", Integer, nullable=False, default=0),
    # Attempts since the last recovery checkpoint, the running one included; and those of them whose child was killed.
    Column("tries", Integer, nullable=False, default=0),
    Column("deaths", Integer, nullable=False, default=0),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    Column("sent_at", Double),
    Column("cancel_requested_at", Double),
    Column("created_at", Double, nullable=False, default=now()),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("failure", JSON(none_as_null=True)),
    # Set when DELETE /train forgot the job; /tasks still tells its end.
    Column("forgotten_at", Double),
    # Set when the files of the ended task were cleaned from the object store.
    Column("cleaned_at", Double),
    # What the result of a prediction takes.
    Column("result_bytes", BigInteger),
    UniqueConstraint("service_id", "job"),
    UniqueConstraint("account_id", "idempotency_key"),
    # At most one running task per repository, kept by the database: two claims at one moment cannot both win.
    Index(
        "uq_tasks_running_repository",
        "repository_id",
        unique=True,
        sqlite_where=text("state = 'running'"),
        postgresql_where=text("state = 'running'"),
    ),
    Index(
        "ix_tasks_open_queue",
        "queue",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_tasks_open_repository",
        "repository_id",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_tasks_open_account",
        "account_id",
        "kind",
        "id",
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index(
        "ix_tasks_uncleaned",
        "finished_at",
        sqlite_where=text("cleaned_at IS NULL AND finished_at IS NOT NULL"),
        postgresql_where=text("cleaned_at IS NULL AND finished_at IS NOT NULL"),
    ),
    Index(
        "ix_tasks_results",
        "account_id",
        "result_bytes",
        sqlite_where=text("result_bytes IS NOT NULL AND cleaned_at IS NULL"),
        postgresql_where=text("result_bytes IS NOT NULL AND cleaned_at IS NULL"),
    ),
    Index("ix_tasks_account_id_id", "account_id", "id"),
    Index("ix_tasks_account_id_state_id", "account_id", "state", "id"),
    Index("ix_tasks_account_id_kind_id", "account_id", "kind", "id"),
    Index("ix_tasks_account_id_service_id_id", "account_id", "service_id", "id"),
    Index("ix_tasks_account_id_created_at_id", "account_id", "created_at", "id"),
    sqlite_autoincrement=True,
)

# Kept apart from the tasks: a report holds whole histories, and polls and lists must not read those.
reports = Table(
    "reports",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("report", JSON, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("task_id", ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", Text),
    Column("resumed_iteration", Integer),
    Column("phases", JSON, nullable=False),
    Column("failure", JSON(none_as_null=True)),
)

versions = Table(
    "versions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("repository_id", ForeignKey("repositories.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("task_id", ForeignKey("tasks.id"), nullable=False, unique=True),
    Column("attempt", Integer, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("description", JSON, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False, default=now()),
    Column("pinned_at", Double),
    Column("removed_at", Double),
    UniqueConstraint("repository_id", "number"),
    sqlite_autoincrement=True,
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("version_id", ForeignKey("versions.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    UniqueConstraint("version_id", "name"),
    sqlite_autoincrement=True,
)

# What users upload. A data set has a number for each of its states: a file is in those from `added` up to, but without,
# `removed`, and its row and content never change, so that a task which names data set and number knows all of it.
datasets = Table(
    "datasets",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("revision", Integer, nullable=False, default=0),
    Column("created_at", Double, nullable=False, default=now()),
    Column("changed_at", Double, nullable=False, default=now()),
    Column("deleted_at", Double),
    Index(
        "uq_datasets_account_id_name",
        "account_id",
        "name",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index(
        "ix_datasets_account_id_id",
        "account_id",
        "id",
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    sqlite_autoincrement=True,
)

dataset_files = Table(
    "dataset_files",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    # Rows, columns and classes, once a worker has read the file.
    Column("facts", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False, default=now()),
    # Without `added` it is on its way: its row is there before its content, so that nothing can be forgotten.
    Column("added", Integer),
    Column("removed", Integer),
    Column("removed_at", Double),
    # The upload that it came from. Not a foreign key: uploads are forgotten, files stay.
    Column("upload_id", _Id),
    Index(
        "uq_dataset_files_dataset_id_path",
        "dataset_id",
        "path",
        unique=True,
        sqlite_where=text("added IS NOT NULL AND removed IS NULL"),
        postgresql_where=text("added IS NOT NULL AND removed IS NULL"),
    ),
    Index("ix_dataset_files_removed_at", "removed_at"),
    Index(
        "ix_dataset_files_staged",
        "dataset_id",
        "upload_id",
        sqlite_where=text("added IS NULL"),
        postgresql_where=text("added IS NULL"),
    ),
    sqlite_autoincrement=True,
)

# Files that come in parts, maybe over days.
dataset_uploads = Table(
    "dataset_uploads",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text),
    Column("part_bytes", BigInteger, nullable=False),
    # Whether the file is an archive, whose members are wanted.
    Column("unpack", Boolean, nullable=False),
    # Whether the client writes the parts into the object store itself.
    Column("is_direct", Boolean, nullable=False),
    # Whether it came in one request, so that nobody was told its number.
    Column("is_whole", Boolean, nullable=False, server_default=false()),
    Column("task_id", ForeignKey("tasks.id")),
    Column("created_at", Double, nullable=False, default=now()),
    Column("ended_at", Double),
    # When its parts were deleted; those whose links may still write are cleaned again and again.
    Column("cleaned_at", Double),
    Index("ix_dataset_uploads_dataset_id", "dataset_id"),
    sqlite_autoincrement=True,
)

dataset_parts = Table(
    "dataset_parts",
    metadata,
    Column("upload_id", ForeignKey("dataset_uploads.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
)

# Addresses that are told of the ends of tasks. The secrets are needed as they are, to sign with.
webhooks = Table(
    "webhooks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("url", Text, nullable=False),
    # What `url` connects to, host and port: deliveries to one place take turns.
    Column("place", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("events", JSON, nullable=False),
    Column("services", JSON, nullable=False),
    Column("secret", Text, nullable=False),
    # The one before, which signs beside the new one until that time.
    Column("old_secret", Text),
    Column("old_secret_until", Double),
    Column("is_active", Boolean, nullable=False),
    Column("inactive_because", Text),
    # When the first of those attempts failed since which none went well.
    Column("failing_since", Double),
    Column("created_at", Double, nullable=False, default=now()),
    Column("changed_at", Double, nullable=False, default=now()),
    Column("deleted_at", Double),
    Index("ix_webhooks_account_id_id", "account_id", "id"),
    sqlite_autoincrement=True,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("webhook_id", ForeignKey("webhooks.id"), nullable=False),
    # What the receiver knows an event by, however often it is sent.
    Column("event_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("task_id", ForeignKey("tasks.id")),
    Column("replay_of", _Id),
    Column("state", Text, nullable=False),
    # The number of the attempt is the fence; `failures` counts those whose end was recorded.
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    # Of a waiting one: when it is to be sent, and while somebody sends it, when another may.
    Column("due_at", Double, nullable=False, default=now()),
    Column("event_at", Double, nullable=False, default=now()),
    Column("created_at", Double, nullable=False, default=now()),
    Column("ended_at", Double),
    Index(
        "ix_webhook_deliveries_due",
        "due_at",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index(
        "ix_webhook_deliveries_waiting",
        "webhook_id",
        "due_at",
        "id",
        sqlite_where=text("state = 'waiting'"),
        postgresql_where=text("state = 'waiting'"),
    ),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    Index("ix_webhook_deliveries_ended_at", "ended_at"),
    sqlite_autoincrement=True,
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", ForeignKey("webhook_deliveries.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    Column("began_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("status", Integer),
    Column("error", Text),
    Column("answer", Text),
)
