"""The only table from kinds of error to HTTP statuses and DeepDetect codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logs.redaction import redacted

Json = dict[str, Any]


@dataclass(frozen=True)
class Code:
    """What a kind of error is in the APIs.

    http : status of the answer.
    dd_code : DeepDetect's own code, if it has one.
    dd_msg : DeepDetect's words; None for the text of the error alone.
    is_followed : whether the text of the error follows the words; else it stands beside them, as `message`.
    retry_after_s : the header Retry-After in seconds.
    """

    http: int
    dd_code: int | None = None
    dd_msg: str | None = None
    is_followed: bool = False
    retry_after_s: int | None = None


PHRASES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "Conflict",
    412: "PreconditionFailed",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    416: "RangeNotSatisfiable",
    429: "TooManyRequests",
    499: "ClientClosedRequest",
    500: "InternalError",
    503: "ServiceUnavailable",
    507: "InsufficientStorage",
}
"""`status.msg` by HTTP status."""

_INPUT = Code(400, 1005, "Service Input Error", is_followed=True)
_REQUEST = Code(400, 1006, "Service Bad Request Error", is_followed=True)
_TOP_LEVEL = Code(400, 400)
_INTERNAL = Code(500, 1007)

STORAGE: dict[str, Code] = {
    "storage": _INTERNAL,
    "service_not_found": Code(404, 1002, "Service Not Found"),
    "service_exists": Code(409, 1014, "Service already exists"),
    "task_not_found": Code(404),
    "job_not_found": Code(404, 1003, "Job Not Found"),
    "version_not_found": _REQUEST,
    "key_not_found": Code(404),
    "key_in_use": Code(409),
    "too_many_queued": Code(429, retry_after_s=10),
    "too_much_stored": Code(413),
    "dataset_not_found": Code(404),
    "dataset_file_not_found": Code(404),
    "dataset_conflict": Code(409),
    "dataset_full": Code(413),
    "bad_dataset_name": Code(400),
    "upload_not_found": Code(404),
    "upload_refused": Code(400),
    "webhook_not_found": Code(404),
    "webhook_inactive": Code(409),
    "too_many_webhooks": Code(409),
    "too_many_deliveries": Code(429, retry_after_s=10),
    "delivery_not_found": Code(404),
    "idempotency_conflict": Code(409),
    "superseded": _INTERNAL,
    "records_unavailable": Code(503, retry_after_s=2),
    "live_unavailable": Code(503, retry_after_s=2),
    "store_unavailable": Code(503, retry_after_s=5),
    "storage_full": Code(507),
    "artifact_not_found": _INTERNAL,
    "artifact_exists": _INTERNAL,
    "bad_artifact_key": _INTERNAL,
    "checksum_mismatch": _INTERNAL,
    "outside_data_roots": _INPUT,
    "repository_unusable": _REQUEST,
    "fetch_failed": _REQUEST,
    "fetch_forbidden": _REQUEST,
}
"""Kinds of `storage.errors`."""

ML: dict[str, Code] = {
    "ml": _INTERNAL,
    "bad_input": _INPUT,
    "bad_parameter": _REQUEST,
    "unknown_name": _REQUEST,
    "unknown_library": Code(404, 1000, "Unknown Library"),
    "unknown_connector": Code(404, 1004, "Input Connector Not Found"),
    "unknown_type": _REQUEST,
    "model_unusable": _REQUEST,
    "missing_extra": Code(404, 1000, "Unknown Library"),
    "not_isolated": _INTERNAL,
    "out_of_memory": _INTERNAL,
    "storage_full": STORAGE["storage_full"],
}
"""Kinds of `ml.errors`."""

WORKERS: dict[str, Code] = {
    "internal": _INTERNAL,
    "killed": _INTERNAL,
    "worker_lost": _INTERNAL,
    "no_answer": Code(503, retry_after_s=2),
    "overloaded": Code(429, retry_after_s=1),
    "answer_too_large": Code(413),
    "caller_gone": Code(499),
}
"""Kinds that only workers, and the wait for them, bring forth."""

OWN: dict[str, Code] = {
    "refused": Code(400),
    "bad_json": Code(400),
    "bad_body": _TOP_LEVEL,
    "bad_query": _TOP_LEVEL,
    "bad_header": _TOP_LEVEL,
    "service_missing": Code(400),
    "route_not_found": Code(404),
    "verb_not_allowed": Code(405),
    "body_too_large": Code(413),
    "body_too_slow": Code(408),
    "encoding_unknown": Code(415),
    "file_too_large": Code(413),
    "checksum_wrong": Code(400),
    "upload_completing": Code(409, retry_after_s=1),
    "key_needed": Code(401),
    "role_needed": Code(403),
    "too_many_requests": Code(429, retry_after_s=60),
    "foreign_origin": Code(403),
    "nothing_to_delete": Code(404),
    "train_predict_conflict": Code(409, 1008, "Train / Predict Conflict"),
    "no_model": _REQUEST,
    "report_not_found": Code(404),
    "result_pending": Code(409, retry_after_s=1),
    "result_not_found": Code(404),
    "file_not_found": Code(404),
    "precondition_failed": Code(412),
    "range_unsatisfiable": Code(416),
    "busy": Code(503, retry_after_s=1),
    "too_many_streams": Code(429, retry_after_s=5),
    "goes_on": Code(503, retry_after_s=5),
    "push_target_missing": Code(400),
    "push_failed": Code(404, 1009, "Output Connector Network Error"),
}
"""Kinds of `api.refusals`."""

CODES: dict[str, Code] = {**STORAGE, **ML, **WORKERS, **OWN}

_BY_SECTION = {("bad_parameter", "input"): _INPUT, ("bad_parameter", "service"): _TOP_LEVEL}


def code_of(kind: str, section: str | None = None) -> Code:
    """The codes of a kind of error; a kind nobody knows is an internal error.

    section : part of the request at fault, for kinds whose code depends on it.
    """
    return _BY_SECTION.get((kind, section or "")) or CODES.get(kind, _INTERNAL)


def status_of(kind: str, message: str, section: str | None = None) -> Json:
    """DeepDetect's `status` object of an error: raised here, told by a worker, or kept with a failed task.

    `message` is a member of ours: it holds the text where DeepDetect has fixed words or none. What was sent may be
    repeated in it, but no credentials.
    """
    message = redacted(message)
    code = code_of(kind, section)
    status: Json = {"code": code.http, "msg": PHRASES[code.http]}
    if kind == "route_not_found":
        return {**status, "msg": f"Not Found: {message}"}
    if code.dd_code is None:
        return {**status, "message": message}
    if code.is_followed:
        return {**status, "dd_code": code.dd_code, "dd_msg": f"{code.dd_msg}: {message}"}
    if code.dd_msg is None:
        return {**status, "dd_code": code.dd_code, "dd_msg": message}
    return {**status, "dd_code": code.dd_code, "dd_msg": code.dd_msg, "message": message}
