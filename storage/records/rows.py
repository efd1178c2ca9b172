"""What the records hand out: plain frozen rows. Times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

Json = dict[str, Any]


class State(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self not in MOVES


MOVES: dict[State, frozenset[State]] = {  # a state absent from this table is final
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.QUEUED, State.FINISHED, State.FAILED, State.CANCELLED}),
}


SPEC_VERSION = 1
"""The latest form of specifications that this program understands; `needs` in one says which a worker must know."""


class Kind(StrEnum):
    """What a task does. One that a later version of this program knows is read as itself, and is no member."""

    TRAIN = "train"
    CLEAR = "clear"
    IMPORT = "import"
    PREDICT = "predict"
    UPLOAD = "upload"
    DESCRIBE = "describe"

    @classmethod
    def _missing_(cls, value: object) -> Kind | None:
        if not isinstance(value, str):
            return None
        later = str.__new__(cls, value)
        later._name_, later._value_ = "LATER", value
        return later


class Role(IntEnum):
    """What a key is good for; each role may do what those before it may. `str` gives the name that people use."""

    READ = 1
    PREDICT = 2
    TRAIN = 3
    ADMIN = 4

    def __str__(self) -> str:
        return self.name.lower()

    @classmethod
    def named(cls, name: str) -> Role:
        """The role of that name; raises ValueError."""
        for role in cls:
            if str(role) == name:
                return role
        raise ValueError(f"role is {name[:40]!r}; use one of {', '.join(map(str, cls))}")


@dataclass(frozen=True)
class Quotas:
    """What an account may use; None where the default of the installation holds, 0 for no limit.

    trainings : running at once. queued_tasks : waiting at once. stored_bytes : in data sets, versions and results.
    """

    trainings: int | None = None
    queued_tasks: int | None = None
    stored_bytes: int | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True)
class Account:
    """Who owns services, tasks and repositories."""

    id: int
    name: str


@dataclass(frozen=True)
class Caller(Account):
    """An account as one of its keys acts for it.

    key_id : number of the key; None for `local`, which acts without one. quotas : those in force, without None.
    """

    role: Role
    key_id: int | None
    quotas: Quotas


@dataclass(frozen=True)
class Key:
    """A credential of an account; the secret itself is not kept."""

    id: int
    account_id: int
    account: str
    role: Role
    label: str
    created_at: float
    revoked_at: float | None


@dataclass(frozen=True)
class NewNote:
    """What is to be noted in the audit log.

    account_id, key_id, role : who acted; no account when nobody knows, no key for `local` and on the machine itself.
    action : what was done, such as `key.create`. kind, name : the object that it was done to.
    outcome : "done" or "refused". count : how often, when several are told as one.
    trace : the trace of the request, if it had one. address : where it came from.
    """

    action: str
    kind: str = ""
    name: str = ""
    account_id: int | None = None
    key_id: int | None = None
    role: str = ""
    outcome: str = "done"
    count: int = 1
    trace: str = ""
    address: str = ""


@dataclass(frozen=True)
class Note:
    """A line of the audit log; see `NewNote`."""

    id: int
    at: float
    account: str | None
    key_id: int | None
    role: str
    action: str
    kind: str
    name: str
    outcome: str
    count: int
    trace: str
    address: str


@dataclass(frozen=True)
class Repository:
    """Where the versions of a model belong: an absolute path inside a data root, or `objects:ACCOUNT/NAME`."""

    id: int
    account_id: int
    location: str
    version_counter: int
    exported_version: int

    @property
    def is_folder(self) -> bool:
        """Whether versions are copied to a folder of a data root as well."""
        return self.location.startswith("/")

    @property
    def name(self) -> str:
        """What the client called it."""
        return self.location if self.is_folder else self.location.partition("/")[2]


@dataclass(frozen=True)
class Service:
    """A named configuration that clients talk to.

    model : what trainings need of the `model` object of its creation request, besides the repository.
    """

    id: int
    account_id: int
    name: str
    mllib: str
    mltype: str
    type: str
    description: str
    repository_id: int
    parameters: Json
    model: Json
    created_at: float


@dataclass(frozen=True)
class NewTask:
    """A task to be accepted together with something else."""

    kind: Kind
    queue: str
    spec: Json
    service_id: int | None = None
    repository_id: int | None = None


@dataclass(frozen=True)
class Task:
    """A durable piece of work, without its specification and its report, which are read on their own."""

    id: int
    account_id: int
    kind: Kind
    queue: str
    state: State
    service_id: int | None
    repository_id: int | None
    job: int | None
    warnings: list[Json]
    attempt: int
    tries: int
    deaths: int
    lease_owner: str | None
    lease_until: float | None
    sent_at: float | None
    cancel_requested_at: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    checkpoint: Json | None
    failure: Json | None
    forgotten_at: float | None

    @property
    def message_id(self) -> str:
        """Celery's id of the message for the next attempt, readable in Flower: `train-17-a2`."""
        return f"{self.kind}-{self.id}-a{self.attempt + 1}"


@dataclass(frozen=True)
class Attempt:
    """A claimed task: what its worker needs, and the fence (`number`) that guards each of its writes."""

    task: Task
    spec: Json
    number: int
    owner: str

    @property
    def prefix(self) -> str:
        """Where this attempt alone puts its files in the object store."""
        return f"attempts/{self.task.id}/{self.number}"

    @property
    def name(self) -> str:
        """Readable name for logs and folders."""
        return f"{self.task.kind}-{self.task.id}-a{self.number}"


@dataclass(frozen=True)
class AttemptRow:
    """How one try went."""

    number: int
    owner: str
    started_at: float
    ended_at: float | None
    outcome: str | None
    resumed_iteration: int | None
    phases: Json
    failure: Json | None


@dataclass(frozen=True)
class Artifact:
    """A file of a version in the object store."""

    name: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class NewVersion:
    """What a successful attempt wants published."""

    prefix: str
    description: Json
    artifacts: list[Artifact]


@dataclass(frozen=True)
class ModelSize:
    """How large a version is: bytes of its files, and the weights that its description counts, learned or frozen."""

    size_bytes: int
    params: int
    frozen_params: int


@dataclass(frozen=True)
class Version:
    """A published result of a training in a repository."""

    id: int
    repository_id: int
    number: int
    task_id: int
    attempt: int
    prefix: str
    description: Json
    size_bytes: int
    created_at: float
    pinned_at: float | None
    artifacts: list[Artifact] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """Files that a user uploaded, under one name.

    revision : 0 when it was made, one more with each change. file_count, size_bytes : of the files it holds now.
    """

    id: int
    account_id: int
    name: str
    revision: int
    created_at: float
    changed_at: float
    file_count: int
    size_bytes: int


@dataclass(frozen=True)
class NewFile:
    """A file that is to be part of a data set: its path there, and where and what its content is."""

    path: str
    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetFile:
    """A file of a data set, with a content that never changes."""

    id: int
    path: str
    key: str
    size_bytes: int
    sha256: str
    facts: Json | None


@dataclass(frozen=True)
class Upload:
    """A file that comes in parts of `part_bytes`, the last one shorter.

    sha256 : what the client says of the whole file. unpack : whether it is an archive whose members are wanted.
    is_direct : whether its parts are written into the object store without us. is_whole : whether it came in one
    request, so that nobody was told its number. task_id : the task that completes it.
    """

    id: int
    dataset_id: int
    path: str
    size_bytes: int
    sha256: str | None
    part_bytes: int
    unpack: bool
    is_direct: bool
    is_whole: bool
    task_id: int | None
    created_at: float
    ended_at: float | None

    @property
    def part_count(self) -> int:
        """How many parts it has; one even when it is empty."""
        return max(1, -(-self.size_bytes // self.part_bytes))

    def size_of(self, number: int) -> int:
        """Bytes of the part `number`, counted from 1."""
        return min(self.part_bytes, self.size_bytes - (number - 1) * self.part_bytes)

    @property
    def prefix(self) -> str:
        """Where its parts lie in the object store."""
        return f"uploads/{self.id}"

    def part_key(self, number: int, sha256: str | None = None) -> str:
        """The key of a part; without `sha256` that of one which came without us."""
        return f"{self.prefix}/{number}" if sha256 is None else f"{self.prefix}/{number}-{sha256}"


@dataclass(frozen=True)
class Part:
    """A part of an upload that is there; its SHA-256 is not known when it came without us."""

    number: int
    size_bytes: int
    sha256: str | None


class Delivering(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class NewWebhook:
    """An address that is to be told of the ends of tasks.

    place : host and port that `url` leads to. services : names of those whose tasks count; all when there are none.
    """

    url: str
    place: str
    description: str
    events: list[str]
    services: list[str]
    is_active: bool


@dataclass(frozen=True)
class Webhook(NewWebhook):
    """An address that is told of the ends of tasks, without the secret that it is signed with.

    failing_since : when the first attempt failed after which none went well.
    """

    id: int
    account_id: int
    inactive_because: str | None
    failing_since: float | None
    old_secret_until: float | None
    created_at: float
    changed_at: float


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one webhook.

    event_id : what the receiver knows the event by. task_id : None for a test. attempt : the newest one's number.
    due_at : of a waiting one, when it is sent next. event_at : when the task ended.
    """

    id: int
    webhook_id: int
    event_id: str
    event: str
    task_id: int | None
    replay_of: int | None
    state: Delivering
    attempt: int
    failures: int
    due_at: float
    event_at: float
    created_at: float
    ended_at: float | None


@dataclass(frozen=True)
class DeliveryAttempt:
    """One try at a delivery; without end while it runs, and for good when its sender died.

    answer : the beginning of what came back.
    """

    number: int
    owner: str
    began_at: float
    ended_at: float | None
    status: int | None
    error: str | None
    answer: str | None


@dataclass(frozen=True)
class Parcel:
    """A delivery that was claimed: what its sender needs. The number of its attempt guards what it writes.

    secrets : those to sign with, the newest first.
    """

    delivery: Delivery
    account_id: int
    url: str
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True)
class Receipt:
    """How an attempt at a delivery went. error : why it failed; None when it went well."""

    status: int | None
    error: str | None
    answer: str | None
