"""Records: accounts, services, tasks and versions in a SQL database. The truth; everything else may be lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import DatabaseError, OperationalError

from storage.errors import RecordsUnavailable
from storage.records import form
from storage.records.accounts import LOCAL, Accounts, Keys
from storage.records.audit import Audit
from storage.records.database import Database
from storage.records.datasets import Datasets
from storage.records.deliveries import Deliveries, Due, WaitingDeliveries
from storage.records.inventory import Inventory, Named
from storage.records.queues import Before, Queues, Running, Took
from storage.records.quotas import QuotaRecords, Use
from storage.records.rows import (
    MOVES,
    Account,
    Artifact,
    Attempt,
    AttemptRow,
    Caller,
    Dataset,
    DatasetFile,
    Delivering,
    Delivery,
    DeliveryAttempt,
    Key,
    Kind,
    ModelSize,
    NewFile,
    NewNote,
    NewTask,
    NewVersion,
    NewWebhook,
    Note,
    Parcel,
    Part,
    Quotas,
    Receipt,
    Repository,
    Role,
    Service,
    State,
    Task,
    Upload,
    Version,
    Webhook,
)
from storage.records.schema import now
from storage.records.services import Repositories, Services
from storage.records.tasks import Ended, OpenTasks, Tasks, Waiting
from storage.records.uploads import Uploads
from storage.records.versions import Versions
from storage.records.webhooks import Webhooks

__all__ = [
    "LOCAL",
    "MOVES",
    "Account",
    "Artifact",
    "Attempt",
    "AttemptRow",
    "Before",
    "Caller",
    "Dataset",
    "DatasetFile",
    "Delivering",
    "Delivery",
    "DeliveryAttempt",
    "Due",
    "Ended",
    "Key",
    "Kind",
    "ModelSize",
    "Named",
    "NewFile",
    "NewNote",
    "NewTask",
    "NewVersion",
    "NewWebhook",
    "Note",
    "OpenTasks",
    "Parcel",
    "Part",
    "Quotas",
    "Receipt",
    "Records",
    "Repository",
    "Role",
    "Running",
    "Service",
    "State",
    "Task",
    "Took",
    "Upload",
    "Use",
    "Version",
    "Waiting",
    "WaitingDeliveries",
    "Webhook",
]


class Records:
    """All records behind one address. Safe to share between threads; a forked process makes its own.

    quotas : what accounts may use that have no quotas of their own, by the names of `Quotas`; no limits without.
    """

    def __init__(self, database: Database, quotas: Mapping[str, int] | None = None) -> None:
        self.database = database
        self.audit = Audit(database)
        self.quotas = QuotaRecords(database, quotas)
        self.accounts = Accounts(database)
        self.keys = Keys(database, self.accounts, self.quotas)
        self.services = Services(database)
        self.repositories = Repositories(database)
        self.tasks = Tasks(database, self.quotas)
        self.queues = Queues(database)
        self.versions = Versions(database)
        self.datasets = Datasets(database, self.quotas)
        self.uploads = Uploads(database, self.quotas)
        self.webhooks = Webhooks(database)
        self.deliveries = Deliveries(database)
        self.inventory = Inventory(database)

    @classmethod
    def connect(cls, url: str, quotas: Mapping[str, int] | None = None) -> Records:
        """Records at a SQLAlchemy address; nothing is read before the first call.

        Raises RecordsUnavailable when the address cannot be understood.
        """
        return cls(Database(url), quotas)

    def upgrade(self) -> None:
        """Bring the tables to the newest form; a later one stays. Several processes may ask at once.

        Raises RecordsForm when the tables are of a later form that this program cannot use.
        """
        from storage.records.migration import upgrade

        if self.database.is_sqlite and self.database.url.database:
            Path(self.database.url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        upgrade(self.database)

    def check(self) -> None:
        """Raises RecordsUnavailable unless the database answers, RecordsForm unless this program can use its tables."""
        with self.database.read() as connection:
            try:
                form.check(connection)
            except OperationalError:
                raise
            except DatabaseError as error:
                raise RecordsUnavailable(f"the records cannot be read: {error.orig}") from error

    def clock_s(self) -> float:
        """Seconds since the epoch by the clock of the database."""
        with self.database.read() as connection:
            return float(connection.execute(select(now())).scalar_one())

    def close(self) -> None:
        """Give all connections back."""
        self.database.close()
