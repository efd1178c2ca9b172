"""What storage raises. The errors know no HTTP; `api/errors.py` maps each `kind` to the codes of the APIs."""

from __future__ import annotations

from typing import ClassVar


class StorageError(Exception):
    """Base of all errors of `storage`; `str(error)` is fit for a client."""

    kind: ClassVar[str] = "storage"


class ServiceNotFound(StorageError):
    """The account has no service of that name."""

    kind = "service_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"service {name[:255]!r} does not exist")


class ServiceExists(StorageError):
    """The account has a service of that name already."""

    kind = "service_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"service {name!r} exists already; delete it first or choose another name")


class TaskNotFound(StorageError):
    """The account has no task of that number."""

    kind = "task_not_found"

    def __init__(self, task_id: object) -> None:
        super().__init__(f"task {task_id} does not exist")


class JobNotFound(StorageError):
    """The service has no job of that number, or the job was deleted."""

    kind = "job_not_found"

    def __init__(self, job: object) -> None:
        super().__init__(f"job {job} does not exist")


class VersionNotFound(StorageError):
    """The repository has no published version."""

    kind = "version_not_found"


class KeyNotFound(StorageError):
    """No such key, or it is revoked already."""

    kind = "key_not_found"


class KeyInUse(StorageError):
    """A call asks for the end of the very key that it was made with."""

    kind = "key_in_use"


class QueueQuota(StorageError):
    """As many tasks of the account wait as may."""

    kind = "too_many_queued"


class StoredQuota(StorageError):
    """What the account keeps would be more than it may."""

    kind = "too_much_stored"


class DatasetNotFound(StorageError):
    """The account has no data set of that name."""

    kind = "dataset_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"data set {name[:255]!r} does not exist")


class DatasetFileNotFound(StorageError):
    """The data set holds no file of that path."""

    kind = "dataset_file_not_found"


class DatasetConflict(StorageError):
    """A file would lie below another file, or take the place of a folder."""

    kind = "dataset_conflict"


class BadDatasetName(StorageError):
    """A name that no data set can have, or a path that no file of one can have."""

    kind = "bad_dataset_name"


class UploadRefused(StorageError):
    """What was uploaded is not what was promised, or an archive that cannot be unpacked."""

    kind = "upload_refused"


class DatasetFull(StorageError):
    """A data set would hold more files than one may."""

    kind = "dataset_full"


class UploadNotFound(StorageError):
    """The data set has no upload of that number that still goes on."""

    kind = "upload_not_found"

    def __init__(self, upload_id: object) -> None:
        super().__init__(f"upload {upload_id} does not exist, or is over")


class WebhookNotFound(StorageError):
    """The account has no webhook of that number."""

    kind = "webhook_not_found"

    def __init__(self, webhook_id: object) -> None:
        super().__init__(f"webhook {webhook_id} does not exist")


class TooManyWebhooks(StorageError):
    """The account has as many webhooks as one may have."""

    kind = "too_many_webhooks"


class WebhookInactive(StorageError):
    """The webhook is not active, so nothing is sent to it."""

    kind = "webhook_inactive"


class TooManyDeliveries(StorageError):
    """As many deliveries wait as may."""

    kind = "too_many_deliveries"


class DeliveryNotFound(StorageError):
    """The webhook has no delivery of that number, or it was deleted with age."""

    kind = "delivery_not_found"

    def __init__(self, delivery_id: object) -> None:
        super().__init__(f"delivery {delivery_id} does not exist, or was deleted with age")


class IdempotencyConflict(StorageError):
    """An Idempotency-Key came again with another request."""

    kind = "idempotency_conflict"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency-Key {key!r} was used for another request; use a new key or repeat the same request"
        )


class Superseded(StorageError):
    """The task was taken over or ended: this attempt may no longer write."""

    kind = "superseded"


class RecordsUnavailable(StorageError):
    """The database does not answer."""

    kind = "records_unavailable"


class RecordsForm(RecordsUnavailable):
    """The tables are not of a form that this program can use."""


class RecordsRefused(RecordsUnavailable):
    """The database lets nobody in with this user and password: waiting mends nothing."""


class LiveUnavailable(StorageError):
    """Redis does not answer."""

    kind = "live_unavailable"


class LiveRefused(LiveUnavailable):
    """Redis lets nobody in with this user and password: waiting mends nothing."""


class StoreUnavailable(StorageError):
    """The object store failed in a way that is not the caller's fault."""

    kind = "store_unavailable"


class StorageFull(StorageError):
    """No space is left on the disk or in the store."""

    kind = "storage_full"


class ArtifactNotFound(StorageError):
    """The object store holds nothing under that key."""

    kind = "artifact_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"nothing is stored under {key!r}")
        self.key = key


class ArtifactExists(StorageError):
    """Another content is stored under that key: keys are written once."""

    kind = "artifact_exists"


class BadArtifactKey(StorageError):
    """A key that could leave its place: absolute, with `..`, empty parts or control characters."""

    kind = "bad_artifact_key"


class ChecksumMismatch(StorageError):
    """Stored bytes differ from what their record says."""

    kind = "checksum_mismatch"


class OutsideDataRoots(StorageError):
    """A path leads out of the folders that requests may use."""

    kind = "outside_data_roots"


class RepositoryUnusable(StorageError):
    """A model repository is missing, is a file, or cannot be written."""

    kind = "repository_unusable"


class FetchFailed(StorageError):
    """Another host could not be reached, did not answer in time, or not with what was wanted.

    is_transient : whether the same may go well a moment later.
    """

    kind = "fetch_failed"

    def __init__(self, message: str, *, is_transient: bool = False) -> None:
        super().__init__(message)
        self.is_transient = is_transient


class NoSuchFile(FetchFailed):
    """Another host said that it has no such file, or the address cannot be one of a file."""


class FetchAbandoned(FetchFailed):
    """Whoever wanted the file does not want it any more."""


class FetchForbidden(FetchFailed):
    """A URL that is not to be used: not http(s), or at an address that is neither public nor allowed."""

    kind = "fetch_forbidden"
