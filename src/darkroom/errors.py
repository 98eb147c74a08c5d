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
    │   ├── UnknownWebhook
    │   ├── MethodNotAllowed
    │   ├── IdempotencyConflict
    │   ├── BodyTooLarge
    │   ├── UploadsFull
    │   ├── WebhooksFull
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
    │   ├── LoraError               its file can't be used; refused at the door where that is known by then
    │   │   ├── LoraNotSafetensors
    │   │   ├── LoraHeaderInvalid
    │   │   ├── LoraTruncated
    │   │   ├── LoraOverlapping
    │   │   ├── LoraNotLora
    │   │   ├── LoraWrongModel
    │   │   ├── LoraUnsupported
    │   │   ├── LoraInconsistent
    │   │   ├── LoraRankInvalid
    │   │   ├── LoraShapeMismatch
    │   │   ├── LoraNotFinite
    │   │   ├── LoraUnreachable
    │   │   ├── LoraNotFound
    │   │   ├── LoraDenied
    │   │   ├── LoraForbidden
    │   │   ├── LoraRedirectForbidden
    │   │   ├── LoraTooLarge
    │   │   ├── LoraChanged
    │   │   └── LoraNoRoom
    │   ├── JobCancelled
    │   ├── ModelChanged
    │   ├── OutOfMemory
    │   ├── EngineFailed
    │   └── WorkerLost
    └── LeaseLost                   this worker no longer holds the job: whatever it made is dropped

`code` is stable and machine-readable; the message is for people and says what to do. `field` names the request's
parameter at fault, where there is one.
"""

from typing import ClassVar, Self


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


class UnknownWebhook(RequestError):
    code = "unknown_webhook"

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"Webhook {webhook_id} not found")


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class IdempotencyConflict(RequestError):
    code = "idempotency_conflict"


class BodyTooLarge(RequestError):
    code = "body_too_large"


class UploadsFull(RequestError):
    code = "uploads_full"


class WebhooksFull(RequestError):
    code = "webhooks_full"


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


class LoraError(JobError):
    """A LoRA's file can't be used: the request is refused with this where that is known at the door, else the job ends
    FAILED with it."""

    def at(self, field: str) -> Self:
        """The same, of the request's parameter that names the file."""
        return type(self)(f"{field}: {self.message}", field=field)


class LoraNotSafetensors(LoraError):
    """A web page, a pickle, an archive: its first bytes are not those of a safetensors file."""

    code = "lora_not_safetensors"


class LoraHeaderInvalid(LoraError):
    """The header can't be read, or what it says of a tensor's size is not so."""

    code = "lora_header_invalid"


class LoraTruncated(LoraError):
    """The file ends before what its header promises."""

    code = "lora_truncated"


class LoraOverlapping(LoraError):
    """Two tensors share bytes."""

    code = "lora_overlapping"


class LoraNotLora(LoraError):
    """No tensor in it is a LoRA's: a whole checkpoint, say."""

    code = "lora_not_lora"


class LoraWrongModel(LoraError):
    """It changes modules that this model does not have."""

    code = "lora_wrong_model"


class LoraUnsupported(LoraError):
    """DoRA, OFT, a text encoder's LoRA, integers: a form that Darkroom does not merge."""

    code = "lora_unsupported"


class LoraInconsistent(LoraError):
    """A half without the other, or two for one place."""

    code = "lora_inconsistent"


class LoraRankInvalid(LoraError):
    """The rank is 0, or more than any matrix of these sides could need."""

    code = "lora_rank_invalid"


class LoraShapeMismatch(LoraError):
    code = "lora_shape_mismatch"


class LoraNotFinite(LoraError):
    """A value is infinite or not a number."""

    code = "lora_not_finite"


class LoraUnreachable(LoraError):
    """Its host gives no answer, or none that is of use."""

    code = "lora_unreachable"


class LoraNotFound(LoraError):
    """Its host has no such file."""

    code = "lora_not_found"


class LoraDenied(LoraError):
    """Its host wants a token, or another one."""

    code = "lora_access_denied"


class LoraForbidden(LoraError):
    """Its address leads to where this server does not go."""

    code = "lora_address_forbidden"


class LoraRedirectForbidden(LoraError):
    """Its address redirects to where this server does not go."""

    code = "lora_redirect_forbidden"


class LoraTooLarge(LoraError):
    code = "lora_too_large"


class LoraChanged(LoraError):
    """What its address stands for is not what it stood for when the request was accepted, and that is gone."""

    code = "lora_changed"


class LoraNoRoom(LoraError):
    """The store has no room for it, even without all that may go."""

    code = "lora_no_room"


class JobCancelled(JobError):
    code = "cancelled"


class ModelChanged(JobError):
    code = "model_changed"


class OutOfMemory(JobError):
    code = "out_of_memory"


class EngineFailed(JobError):
    code = "engine_failed"


class WorkerLost(JobError):
    code = "worker_lost"


class LeaseLost(DarkroomError):
    """Another worker holds the job now, or the job has ended: whatever this worker made of it is dropped."""

    code = "lease_lost"
