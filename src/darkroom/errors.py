"""Every error Darkroom raises on purpose.

    DarkroomError
    ├── SetupError                  the service can't start, or a command can't run
    │   ├── BadSetting
    │   ├── BadCard
    │   ├── BadCheckpoint
    │   ├── ServerUnreachable
    │   └── ServerRefused
    ├── RequestError                refused at the door: nothing was kept, nothing was charged
    │   ├── MalformedBody
    │   ├── InvalidField
    │   ├── UnknownField
    │   ├── MissingKey
    │   ├── InvalidKey
    │   ├── InsufficientCredits
    │   ├── UnsupportedMediaType
    │   ├── ModelForbidden
    │   ├── UnknownPath
    │   ├── UnknownModel
    │   ├── UnknownRequest
    │   ├── MethodNotAllowed
    │   ├── IdempotencyConflict
    │   ├── BodyTooLarge
    │   ├── RangeInvalid
    │   ├── RateLimited
    │   ├── AdapterUnavailable
    │   ├── StorageFull
    │   ├── StillRunning
    │   ├── LinkInvalid
    │   └── LinkExpired
    ├── JobError                    the job was accepted and ends FAILED with this
    │   ├── PictureUnreachable
    │   ├── PictureForbidden
    │   ├── PictureTooLarge
    │   ├── PictureInvalid
    │   ├── JobCancelled
    │   ├── OutOfMemory
    │   ├── EngineFailed
    │   └── WorkerLost
    └── LeaseLost                   this worker no longer holds the job: whatever it made is dropped

`code` is stable and machine-readable; the message is for people and says what to do. `field` names the request's
parameter at fault, where there is one.
"""

from typing import ClassVar


class DarkroomError(Exception):
    code: ClassVar[str]

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class SetupError(DarkroomError):
    """The service can't start, or a command can't run."""


class BadSetting(SetupError):
    code = "bad_setting"


class BadCard(SetupError):
    code = "bad_card"


class BadCheckpoint(SetupError):
    code = "bad_checkpoint"


class ServerUnreachable(SetupError):
    """A command's call to a running service got no answer."""

    code = "server_unreachable"


class ServerRefused(SetupError):
    """A running service answered a command's call with an error, whose text this is."""

    code = "server_refused"


class RequestError(DarkroomError):
    """The request is refused at the door: nothing was kept, nothing was charged."""


class MalformedBody(RequestError):
    code = "malformed_body"


class InvalidField(RequestError):
    code = "invalid_field"


class UnknownField(RequestError):
    code = "unknown_field"


class MissingKey(RequestError):
    code = "missing_api_key"


class InvalidKey(RequestError):
    code = "invalid_api_key"


class InsufficientCredits(RequestError):
    code = "insufficient_credits"


class UnsupportedMediaType(RequestError):
    code = "invalid_content_type"


class ModelForbidden(RequestError):
    code = "model_forbidden"


class UnknownPath(RequestError):
    code = "not_found"


class UnknownModel(RequestError):
    code = "unknown_model"


class UnknownRequest(RequestError):
    code = "unknown_request"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"Request {request_id} not found")


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class RangeInvalid(RequestError):
    """`size_bytes`: what there is to ask for."""

    code = "invalid_range"

    def __init__(self, message: str, *, size_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes


class RateLimited(RequestError):
    """`limit`: requests a minute this key may make; `retry_after_s`: seconds until the next one would be taken;
    `reset_after_s`: until the full limit is there again."""

    code = "rate_limited"

    def __init__(self, *, limit: int, retry_after_s: float, reset_after_s: float) -> None:
        super().__init__(f"Rate limit of {limit} requests a minute exceeded; retry in {retry_after_s:.1f} s")
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.reset_after_s = reset_after_s


class AdapterUnavailable(RequestError):
    code = "adapter_unavailable"


class StorageFull(RequestError):
    code = "storage_full"


class StillRunning(RequestError):
    """A v1 call's wait is over before the job is: the job goes on and is found under its request id."""

    code = "still_running"


class LinkInvalid(RequestError):
    """A link to a result that this server did not sign."""

    code = "invalid_link"


class LinkExpired(RequestError):
    """A link to a result that was right once."""

    code = "link_expired"


class JobError(DarkroomError):
    """The job was accepted; it ends FAILED with this."""


class PictureUnreachable(JobError):
    code = "image_unreachable"


class PictureForbidden(JobError):
    code = "image_address_forbidden"


class PictureTooLarge(JobError):
    code = "image_too_large"


class PictureInvalid(JobError):
    code = "image_invalid"


class JobCancelled(JobError):
    code = "cancelled"


class OutOfMemory(JobError):
    code = "out_of_memory"


class EngineFailed(JobError):
    code = "engine_failed"


class WorkerLost(JobError):
    code = "worker_lost"


class LeaseLost(DarkroomError):
    """Another worker holds the job now, or the job has ended: whatever this worker made of it is dropped."""

    code = "lease_lost"
