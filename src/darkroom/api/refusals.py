"""How errors stand in the API's document: in groups of one status, each code with when it comes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from darkroom import errors
from darkroom.api.answer_headers import RATE_LIMIT, headers
from darkroom.api.errors import INTERNAL_ERROR, STATUS, status_of

Schema = dict[str, Any]

WHEN: Mapping[type[errors.DarkroomError], str] = {
    errors.MalformedBody: "The body is not JSON or not multipart/form-data, or is no object of parameters.",
    errors.InvalidField: "A parameter or header is missing or out of its bounds, or an inline picture is unreadable.",
    errors.UnknownField: "There is no such parameter; the nearest one is named.",
    errors.MissingKey: "Neither x-api-key nor Authorization was sent.",
    errors.InvalidKey: "The key is unknown or revoked.",
    errors.ModelForbidden: "The key may not use this model.",
    errors.LinkInvalid: "The link was not signed by this server.",
    errors.UnknownPath: "The server has no such path.",
    errors.UnknownModel: "There is no model of this name; the nearest one is named.",
    errors.UnknownRequest: "There is no such request, or not any more, or it is another key's.",
    errors.UnknownWebhook: "There is no such webhook, or not any more, or it is another key's.",
    errors.LinkExpired: "The link, or what it led to, has expired.",
    errors.MethodNotAllowed: "The path has other methods; the header Allow names them.",
    errors.InsufficientCredits: "The key's balance is below the model's price; both are named.",
    errors.UnsupportedMediaType: "The body's Content-Type is not one that is taken here.",
    errors.IdempotencyConflict: "The Idempotency-Key stands for a different request already.",
    errors.WebhooksFull: "The key has as many webhooks as it may have.",
    errors.BodyTooLarge: "The body is over the limit.",
    errors.UploadsFull: "What is kept of the key's uploads would be too much; the oldest are the first to go.",
    errors.RangeInvalid: "The Range header asks for nothing that is there.",
    errors.PictureUnreachable: "A picture could not be fetched from its address.",
    errors.PictureForbidden: "A picture's address leads to where this server does not go.",
    errors.PictureTooLarge: "A fetched picture has too many bytes or pixels.",
    errors.PictureInvalid: "What was fetched is not a readable picture.",
    errors.LoraNotSafetensors: "A LoRA's file is a pickle, a web page or the like, by its name or its first bytes.",
    errors.LoraHeaderInvalid: "The header of a LoRA's file can't be read, or contradicts itself.",
    errors.LoraTruncated: "A LoRA's file ends before what its header promises.",
    errors.LoraOverlapping: "Two tensors in a LoRA's file share bytes.",
    errors.LoraNotLora: "A file named as a LoRA holds none.",
    errors.LoraWrongModel: "A LoRA was made for another model; which one is named where that can be told.",
    errors.LoraUnsupported: "A LoRA has a form that is not merged here, which is named.",
    errors.LoraInconsistent: "A LoRA's file has half of a pair, or two of one.",
    errors.LoraRankInvalid: "A LoRA's rank is 0, or larger than what it changes.",
    errors.LoraShapeMismatch: "A LoRA's tensor does not have the shape that the model wants.",
    errors.LoraNotFinite: "A LoRA's file holds a value that is infinite or not a number.",
    errors.LoraUnreachable: "A LoRA's host gave no answer in time, or none that is of use.",
    errors.LoraNotFound: "A LoRA's host has no such file.",
    errors.LoraDenied: "A LoRA's host wants a token that this server does not have.",
    errors.LoraForbidden: "A LoRA's address leads to where this server does not go.",
    errors.LoraRedirectForbidden: "A LoRA's address redirects to where this server does not go.",
    errors.LoraTooLarge: "A LoRA's file is larger than this server takes.",
    errors.LoraChanged: "A LoRA's file is another one than when the request was accepted, and that one is gone.",
    errors.LoraNoRoom: "The server has no room for a LoRA's file.",
    errors.JobCancelled: "The request was cancelled.",
    errors.ModelChanged: "The server's model was changed while the request waited: send it again.",
    errors.OutOfMemory: "The device's memory is too small for this request.",
    errors.EngineFailed: "The engine failed on this request.",
    errors.RateLimited: "The key's rate is used up; Retry-After says for how long.",
    errors.WorkerLost: "The request's worker was lost again and again (on v1; on v2 it is FAILED, which is 422).",
    errors.AdapterUnavailable: "An adapter that the request needs is not installed on this server.",
    errors.StorageFull: "The server's disk is full; nothing was accepted.",
    errors.StillRunning: "The wait is over before the request is: it goes on, and its result is found by its id.",
}
"""Every error that a client can be answered with on purpose, by rising status."""

INTERNAL = "Something that nobody foresaw; the server's log has it under the request's id."

HEADERS: Mapping[int, tuple[str, ...]] = {
    401: ("www-authenticate",),
    405: ("allow",),
    416: ("content-range",),
    429: ("retry-after", *RATE_LIMIT),
}
"""What an answer of this status carries beside the request's id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One answer of an operation: the errors of one status that it can have. name: in the document, unique."""

    name: str
    status: int
    codes: Mapping[str, str]

    @classmethod
    def of(cls, name: str, *found: type[errors.DarkroomError]) -> "Group":
        """Raises `ValueError` where the errors' statuses differ."""
        (status,) = {status_of(error.__new__(error)) for error in found}
        return cls(name=name, status=status, codes={error.code: WHEN[error] for error in found})


BAD_REQUEST = Group.of("BadRequest", errors.MalformedBody, errors.InvalidField, errors.UnknownField)
BAD_QUERY = Group.of("BadQuery", errors.InvalidField, errors.UnknownField)
UNAUTHORIZED = Group.of("Unauthorized", errors.MissingKey, errors.InvalidKey)
MODEL_FORBIDDEN = Group.of("ModelForbidden", errors.ModelForbidden)
LINK_INVALID = Group.of("LinkInvalid", errors.LinkInvalid)
UNKNOWN_PATH = Group.of("UnknownPath", errors.UnknownPath)
UNKNOWN_MODEL = Group.of("UnknownModel", errors.UnknownModel)
UNKNOWN_REQUEST = Group.of("UnknownRequest", errors.UnknownRequest)
UNKNOWN_WEBHOOK = Group.of("UnknownWebhook", errors.UnknownWebhook)
LINK_EXPIRED = Group.of("LinkExpired", errors.LinkExpired)
METHOD_NOT_ALLOWED = Group.of("MethodNotAllowed", errors.MethodNotAllowed)
NOT_ACCEPTABLE = Group.of("NotAcceptable", errors.InsufficientCredits, errors.UnsupportedMediaType)
UNSUPPORTED = Group.of("UnsupportedMediaType", errors.UnsupportedMediaType)
CONFLICT = Group.of("IdempotencyConflict", errors.IdempotencyConflict)
WEBHOOKS_FULL = Group.of("WebhooksFull", errors.WebhooksFull)
BODY_TOO_LARGE = Group.of("BodyTooLarge", errors.BodyTooLarge)
UPLOAD_TOO_LARGE = Group.of("UploadTooLarge", errors.BodyTooLarge, errors.UploadsFull)
RANGE_INVALID = Group.of("RangeInvalid", errors.RangeInvalid)
BAD_SUBMIT = Group.of(
    "BadSubmit",
    errors.MalformedBody,
    errors.InvalidField,
    errors.UnknownField,
    *(error for error in WHEN if issubclass(error, errors.LoraError) and status_of(error.__new__(error)) == 400),
)
JOB_FAILED = Group(
    name="JobFailed",
    status=STATUS[errors.JobError],
    codes={
        error.code: when
        for error, when in WHEN.items()
        if issubclass(error, errors.JobError) and error is not errors.WorkerLost
    },
)
ENGINE_GONE = Group.of("EngineGone", errors.WorkerLost)
RATE_LIMITED = Group.of("RateLimited", errors.RateLimited)
UNAVAILABLE = Group.of("Unavailable", errors.AdapterUnavailable, errors.StorageFull, errors.LoraNoRoom)
STORAGE_FULL = Group.of("StorageFull", errors.StorageFull)
STILL_RUNNING = Group.of("StillRunning", errors.StillRunning)
INTERNAL_FAULT = Group(name="InternalError", status=500, codes={INTERNAL_ERROR: INTERNAL})

SUBMIT = (
    BAD_SUBMIT,
    UNAUTHORIZED,
    MODEL_FORBIDDEN,
    NOT_ACCEPTABLE,
    CONFLICT,
    BODY_TOO_LARGE,
    RATE_LIMITED,
    UNAVAILABLE,
)
"""What a submit is refused with. An unknown model has no operation of its own, and so is none of them."""

GROUPS = (
    *SUBMIT,
    BAD_REQUEST,
    BAD_QUERY,
    LINK_INVALID,
    UNKNOWN_PATH,
    UNKNOWN_MODEL,
    UNKNOWN_REQUEST,
    UNKNOWN_WEBHOOK,
    LINK_EXPIRED,
    METHOD_NOT_ALLOWED,
    UNSUPPORTED,
    WEBHOOKS_FULL,
    UPLOAD_TOO_LARGE,
    RANGE_INVALID,
    JOB_FAILED,
    ENGINE_GONE,
    STORAGE_FULL,
    STILL_RUNNING,
    INTERNAL_FAULT,
)


def answers(*groups: Group) -> dict[str, Schema]:
    """The part of an operation's `responses` that these are; our own fault, which any may have, comes by itself."""
    return {str(group.status): {"$ref": f"#/components/responses/{group.name}"} for group in (*groups, INTERNAL_FAULT)}


def responses() -> dict[str, Schema]:
    """components/responses: what `answers` refers to."""
    return {group.name: _response(group) for group in GROUPS}


def schemas() -> dict[str, Schema]:
    """components/schemas: one for each group, so that a client knows which codes to expect where."""
    return {f"{group.name}Answer": _schema(group) for group in GROUPS}


def code_table() -> str:
    """Every code with its status, or each it can have, and when it comes, in Markdown."""
    rows = {(group.status, f"`{code}`", when) for group in GROUPS for code, when in group.codes.items()}
    return "\n".join(["| status | code | when |", "|---|---|---|", *_lines(sorted(rows))])


def _lines(rows: Iterable[tuple[int, str, str]]) -> Iterable[str]:
    return (f"| {' | '.join(map(str, row))} |" for row in rows)


def _response(group: Group) -> Schema:
    return {
        "description": " ".join(group.codes.values()),
        "headers": headers("x-request-id", *HEADERS.get(group.status, ())),
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{group.name}Answer"},
                "examples": {
                    code: {"value": {"error": when, "code": code, "request_id": "0" * 32}}
                    for code, when in group.codes.items()
                },
            }
        },
    }


def _schema(group: Group) -> Schema:
    return {
        "type": "object",
        "required": ["error", "code", "request_id"],
        "properties": {
            "error": {"type": "string", "description": "What went wrong and what to do, for people."},
            "code": {"type": "string", "enum": [*group.codes], "description": "What went wrong, for programs."},
            "field": {"type": "string", "description": "The parameter or header at fault, where there is one."},
            "request_id": {"type": "string", "description": "The request's id, as in the header x-request-id."},
        },
    }
