"""Routes of accounts: who calls, keys, the audit log."""

from __future__ import annotations

from api.openapi.operation import PAGES, Operation, Parameter, json_answer, number_in_path
from api.schemas import account

WHOAMI = Operation(
    "Accounts",
    "Who calls",
    "The account and role of the key, and what the account may use and uses.",
    {200: json_answer("The account.", account.AccountSchema)},
    ("bad_query",),
)

KEYS = Operation(
    "Accounts",
    "List keys",
    "Those of the account, revoked ones too, newest first; never the secrets.",
    {200: json_answer("Keys.", account.KeysSchema)},
    ("bad_query",),
    PAGES,
)

CREATE = Operation(
    "Accounts",
    "Create a key",
    "Of the same account. The secret is told this once; only its SHA-256 is kept.",
    {201: json_answer("The key.", account.NewKeySchema)},
    ("bad_query", "bad_json", "bad_body", "body_too_large", "key_not_found"),
    body="KeyRequest",
    examples={"reader": ("A key that may only read", {"role": "read", "label": "dashboard"})},
)

REVOKE = Operation(
    "Accounts",
    "Revoke a key",
    "It is refused within a second. A key cannot revoke itself.",
    {200: json_answer("The key as it is now.", account.KeySchema)},
    ("bad_query", "key_not_found", "key_in_use"),
    (number_in_path("Number of the key."),),
)

AUDIT = Operation(
    "Accounts",
    "Read the audit log",
    "What was done in the account, and who was refused, newest first.",
    {200: json_answer("Lines.", account.AuditSchema)},
    ("bad_query",),
    (
        Parameter(
            "action",
            "Only this action; with a full stop at its end, such as `key.`, all that begin so.",
            {"type": "string", "minLength": 1, "maxLength": 80},
        ),
        Parameter("since", "Only from this time on, in ISO 8601.", {"type": "string", "format": "date-time"}),
        *PAGES,
    ),
)

OPERATIONS = {
    "accounts.whoami": {"GET": WHOAMI},
    "accounts.keys": {"GET": KEYS},
    "accounts.create_key": {"POST": CREATE},
    "accounts.revoke_key": {"DELETE": REVOKE},
    "accounts.audit": {"GET": AUDIT},
}
