"""What the API itself refuses. The classes know no HTTP; `api/errors.py` maps each `kind` to the codes."""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):
    """Base of the errors that the API raises itself; `str(error)` is fit for a client."""

    kind: ClassVar[str] = "refused"


class BadJson(Refusal):
    """The body is no JSON, is not UTF-8, or is nested too deep."""

    kind = "bad_json"


class BadBody(Refusal):
    """The body is JSON, but no object, or a member at its top level has a wrong type."""

    kind = "bad_body"


class BadQuery(Refusal):
    """A query parameter is unknown, missing or has a wrong value."""

    kind = "bad_query"


class ServiceMissing(Refusal):
    """The request names no service."""

    kind = "service_missing"


class BadHeader(Refusal):
    """A header cannot be used."""

    kind = "bad_header"


class RouteNotFound(Refusal):
    """No such address, or nothing there for this verb."""

    kind = "route_not_found"


class VerbNotAllowed(Refusal):
    """The address exists, for other verbs."""

    kind = "verb_not_allowed"


class BodyTooLarge(Refusal):
    """The body is larger than the limit."""

    kind = "body_too_large"


class BodyTooSlow(Refusal):
    """The body did not come in time."""

    kind = "body_too_slow"


class EncodingUnknown(Refusal):
    """The body is packed in a way that cannot be unpacked here."""

    kind = "encoding_unknown"


class FileTooLarge(Refusal):
    """A file is larger than one of a data set may be."""

    kind = "file_too_large"


class ChecksumWrong(Refusal):
    """What came is not what its checksum says."""

    kind = "checksum_wrong"


class UploadCompleting(Refusal):
    """The parts of an upload are being put together; nothing about it can be changed meanwhile."""

    kind = "upload_completing"


class KeyNeeded(Refusal):
    """The request brings no key that is in force, and one is needed."""

    kind = "key_needed"


class RoleNeeded(Refusal):
    """The key of the request is in force, but not good for this call."""

    kind = "role_needed"


class TooManyRequests(Refusal):
    """The account has sent as many requests in this minute as it may."""

    kind = "too_many_requests"


class ForeignOrigin(Refusal):
    """A web page of another site sent the request through its reader's browser."""

    kind = "foreign_origin"


class NothingToDelete(Refusal):
    """The service to delete does not exist."""

    kind = "nothing_to_delete"


class TrainPredictConflict(Refusal):
    """A prediction on a service whose first training still runs."""

    kind = "train_predict_conflict"


class NoModel(Refusal):
    """A prediction on a service that has no model and trains none."""

    kind = "no_model"


class NotReported(Refusal):
    """The task has no report: it is not over, or it found nothing."""

    kind = "report_not_found"


class ResultPending(Refusal):
    """The task is not over, so it has no result yet."""

    kind = "result_pending"


class NoResult(Refusal):
    """The task has no result, and will have none."""

    kind = "result_not_found"


class FileGone(Refusal):
    """There is no such file to download, or none any more."""

    kind = "file_not_found"


class PreconditionFailed(Refusal):
    """What is to be downloaded is not in the state that the client has seen."""

    kind = "precondition_failed"


class RangeUnsatisfiable(Refusal):
    """The part that is wanted lies behind the end of the file, or is empty."""

    kind = "range_unsatisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes, and none of them are in the range that is wanted")


class Busy(Refusal):
    """Too many calls wait in this process."""

    kind = "busy"


class TooManyStreams(Refusal):
    """As many event streams are open in this process as may be, or as the account may have."""

    kind = "too_many_streams"


class GoesOn(Refusal):
    """Something that the call waited for takes longer than the call may."""

    kind = "goes_on"


class PushTargetMissing(Refusal):
    """The answer to a prediction is to be sent to another host, and none is named."""

    kind = "push_target_missing"


class PushFailed(Refusal):
    """The host that was to get the answer to a prediction did not take it, or did not answer as it should."""

    kind = "push_failed"
