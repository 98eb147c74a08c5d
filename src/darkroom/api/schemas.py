"""The shapes of the answers, as the API's document has them. They are open: a key may be added, none taken away."""

from enum import StrEnum
from typing import Any

from darkroom.admission import FAST, LORAS
from darkroom.api.answers import RESOLVE
from darkroom.api.history import MOST_PER_PAGE
from darkroom.api.refusals import ENGINE_GONE, JOB_FAILED
from darkroom.api.rows import INLINE, Status
from darkroom.api.webhooks import ADDED, ENDED, EVENT, ID_OF, MOST_LOGGED, TYPES, UPDATED, URL
from darkroom.catalogue.parameter import Kind
from darkroom.edit import ImageFormat
from darkroom.job import Stage, State
from darkroom.uploads import FIELD, MAX_FILES
from darkroom.webhook import EventType, Outcome
from darkroom.worker.supervisor import Readiness

Schema = dict[str, Any]

ID = "^[0-9a-f]{32}$"

DONE_IN = {
    Stage.FETCH: "Seconds for bringing and reading the pictures.",
    Stage.LORAS: "Seconds for bringing the LoRAs' files, as far as they were not here.",
    Stage.PREPARE: "Seconds for making the pictures ready for the model.",
    Stage.MERGE: "Seconds for merging the LoRAs into the weights, unless they were.",
    Stage.ENCODE: "Seconds for encoding prompt and pictures.",
    Stage.DENOISE: "Seconds for the denoising steps.",
    Stage.DECODE: "Seconds for decoding the result.",
    Stage.WRITE: "Seconds for writing its file.",
}

LISTED = "Inference Segmind Model Information List With Details"


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Schema]:
    """components/schemas, but for the models' requests and errors."""
    return _requests() | _pictures() | _history() | _webhooks() | _metrics() | _account() | _health()


def _requests() -> dict[str, Schema]:
    return {
        "Submitted": _record(
            status=_one_of("Always QUEUED, also where an Idempotency-Key meets a request that has moved on.", "QUEUED"),
            request_id=_id(),
            poll_url=_url("The result, by the old name of its address."),
            status_url=_url("How the request is."),
            response_url=_url("The result."),
        ),
        "Pending": _record(
            optional={"progress": ref("Progress")},
            status=_one_of("The request waits, or runs.", State.QUEUED, State.PROCESSING),
            request_id=_id(),
            status_url=_url("How the request is."),
            response_url=_url("The result."),
            metrics={"type": "object", "description": "Empty until the request has ended.", "maxProperties": 0},
        ),
        "Progress": _record(
            stage=_one_of("What is being done.", *Stage),
            step={"type": "integer", "minimum": 0, "description": "Denoising steps done."},
            steps={"type": "integer", "minimum": 1, "description": "Denoising steps there are."},
        ),
        "Completed": _record(
            status=_one_of("The result is there.", State.COMPLETED), request_id=_id(), metrics=ref("Times")
        ),
        "Failed": _record(
            optional={"field": _text("The parameter at fault, where there is one.")},
            status=_one_of("The request has ended without a result; its price was given back.", State.FAILED),
            error=_text("What went wrong, for people."),
            code=_one_of("What went wrong, for programs.", *JOB_FAILED.codes, *ENGINE_GONE.codes),
            request_id=_id(),
            metrics=ref("Times"),
        ),
        "Result": _result(),
    }


def _pictures() -> dict[str, Schema]:
    uploaded: dict[str, Schema] = {
        FIELD: {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "maxItems": MAX_FILES,
            "description": "The pictures, as data URLs.",
        }
    }
    return {
        "ResultImage": _record(
            url=_url("The picture: a signed link, good without a key until the result expires."),
            content_type=_one_of("Its media type.", *(kind.content_type for kind in ImageFormat)),
            file_name=_text("What to save it as."),
            file_size={"type": "string", "pattern": "^[1-9][0-9]*$", "description": "Its size in bytes, as text."},
            width={"type": "integer", "minimum": 1, "description": "In pixels."},
            height={"type": "integer", "minimum": 1, "description": "In pixels."},
        ),
        "InlinePicture": _record(
            image=_base64(),
            status=_one_of("Always Success.", "Success"),
            infer_time=_seconds("Seconds of work."),
            outputs=_one_of("How many pictures there are.", 1),
            image_format=_one_of("The picture's file format.", *ImageFormat),
            seed={"type": "integer", "minimum": 0, "description": "The seed it was made with."},
        ),
        "UploadRequest": _record(**uploaded) | {"additionalProperties": False},
        "Uploaded": _record(
            file_urls={
                "type": "array",
                "description": "A link for each picture, in their order: good as a picture until the upload expires.",
                "items": {"type": "string", "format": "uri"},
                "minItems": 1,
                "maxItems": MAX_FILES,
            },
            message=_one_of("For people.", "Files uploaded successfully"),
        ),
    }


def _result() -> Schema:
    return _record(
        optional={
            "image": _base64(),
            "warnings": {"type": "array", "items": {"type": "string"}, "description": "What was done to the inputs."},
        },
        status=_one_of("The result is there.", State.COMPLETED),
        error={"type": "null", "description": "Nothing went wrong."},
        request_id=_id(),
        output=_url("The picture: the address of the first of `images`."),
        images={"type": "array", "items": ref("ResultImage"), "minItems": 1, "maxItems": 1},
        seed={"type": "string", "pattern": "^[0-9]+$", "description": "The seed it was made with, as text."},
        prompt=_text("The prompt it was made with."),
        timings={
            "type": "object",
            "description": "Seconds of work: all of it, and by stage; and what came before it.",
            "required": ["inference"],
            "properties": {
                "inference": _seconds("Seconds of work: all stages."),
                RESOLVE: _seconds("Seconds the submit waited to learn which files its LoRAs are; no part of the work."),
                **{stage: _seconds(DONE_IN[stage]) for stage in Stage},
            },
        },
        metrics=ref("ResultMetrics"),
    )


def _history() -> dict[str, Schema]:
    row: dict[str, Schema] = {
        "request_id": _id(),
        "model_name": _text("The model it was sent to."),
        "model_status": _one_of("PENDING while it waits or runs.", *Status),
        "credits_deduction": _credits("Credits it costs; 0 where it has FAILED, since they were given back."),
        "request_body": ref("AskedRequest"),
        "generation_url": {
            "type": ["string", "null"],
            "format": "uri",
            "description": "The picture, once there is one: a signed link, good without a key until `expires_at`.",
        },
        "latency_ms": {"type": ["integer", "null"], "minimum": 0, "description": "Milliseconds from submit to end."},
        "model_created": _moment("When it was submitted."),
        "model_ended": _time("When it ended."),
        "expires_at": _time("When it and its picture are forgotten; known once it has ended."),
        "error": {"type": ["string", "null"], "description": "Why it has FAILED, for people."},
    }
    failed: dict[str, Schema] = {
        "code": _one_of("Why it has FAILED, for programs.", *JOB_FAILED.codes, *ENGINE_GONE.codes),
        "field": _text("The parameter at fault, where there is one."),
    }
    named: dict[str, Schema] = {
        "status": _one_of("As `model_status`.", Status.COMPLETED),
        "prompt": _text("As in `request_body`."),
        "parameters": ref("AskedRequest"),
    }
    return {
        "AskedRequest": _asked_request(),
        "RequestRow": _record(optional=failed, **row),
        "Generation": _record(**row, **named),
        "RequestPage": _rows("RequestRow"),
        "GenerationPage": _rows("Generation"),
    }


def _asked_request() -> Schema:
    picture = _text(f"A picture's address without its query, or `{INLINE}` for one that did not have to be fetched.")
    strength: Schema = {"type": "number", "description": "The LoRA's strength."}
    loras = {
        parameter: schema
        for name, scale in LORAS.items()
        for parameter, schema in ((name, _text("A LoRA: its name, or its address without a query.")), (scale, strength))
    }
    fast: Schema = {"type": "boolean", "description": "There, and true, where it runs with the Lightning LoRA."}
    return _record(
        optional={**dict.fromkeys(("image", "image_1", "image_2", "image_3"), picture), **loras, FAST: fast},
        prompt=_text("What to change."),
        negative_prompt={"type": ["string", "null"], "description": "What guidance leads away from."},
        aspect_ratio=_text("Width to height of the result, or match_input_image."),
        seed={"type": "integer", "minimum": 0, "description": "The seed, drawn or given."},
        num_inference_steps={"type": "integer", "minimum": 1, "description": "Denoising steps."},
        guidance_scale={"type": "number", "description": "How strongly the prompt is followed."},
        image_format=_one_of("The picture's file format.", *ImageFormat),
        quality={"type": "integer", "minimum": 1, "maximum": 100, "description": "For jpeg and webp."},
        base64={"type": "boolean", "description": "Whether the answer was to carry the picture."},
    ) | {"description": "What was asked for, every default decided, under the parameters' names."}


def _rows(name: str) -> Schema:
    count: Schema = {"type": "integer", "minimum": 0}
    return _record(
        data={"type": "array", "items": ref(name), "maxItems": MOST_PER_PAGE},
        page={"type": "integer", "minimum": 1, "description": "Which page this is."},
        per_page={"type": "integer", "minimum": 1, "maximum": MOST_PER_PAGE, "description": "Rows a full page has."},
        total=count | {"description": "How many rows there are on all pages."},
        total_pages=count | {"description": "How many pages there are."},
    )


def _webhooks() -> dict[str, Schema]:
    types: Schema = {"type": "array", "items": {"type": "string", "enum": [*EventType]}, "minItems": 1}
    event = _record(**{TYPES: types | {"description": "What it is told of."}})
    told: dict[str, Schema] = {
        URL: _url("Where messages are sent, by POST."),
        EVENT: event | {"additionalProperties": False},
    }
    which = {ID_OF: _text("The webhook's id.")}
    return {
        "WebhookAddition": _record(**told) | {"additionalProperties": False},
        "WebhookUpdate": _record(**which, **told) | {"additionalProperties": False},
        "Webhook": _record(
            **which,
            **told,
            is_active={"type": "boolean", "description": "Whether messages are sent to it."},
            secret={"type": "string", "pattern": "^whsec_", "description": "What its messages are signed with."},
            created_at=_moment("When it was added."),
        ),
        "WebhookChanged": _record(message=_one_of("For people.", ADDED, UPDATED, ENDED), webhook=ref("Webhook")),
        "Webhooks": _record(webhooks={"type": "array", "items": ref("Webhook")}),
        "Dispatch": _record(
            message_id=_text("The message's id, which its header webhook-id has."),
            request_id=_id(),
            event_type=_one_of("What it tells of.", *EventType),
            status=_one_of("PENDING while it is to be sent, or sent again.", *Outcome),
            attempts={"type": "integer", "minimum": 0, "description": "How often it was sent."},
            response_code={"type": ["integer", "null"], "description": "The HTTP status of the latest answer."},
            error={"type": ["string", "null"], "description": "What was wrong with the latest attempt."},
            created_at=_moment("When the request ended."),
            sent_at=_time("When it was sent, the latest time."),
            next_attempt_at=_time("When it may be sent again; null once it will not be."),
        ),
        "Dispatches": _record(logs={"type": "array", "items": ref("Dispatch"), "maxItems": MOST_LOGGED}),
        "CompletedMessage": _message(EventType.COMPLETED, "Result"),
        "FailedMessage": _message(EventType.FAILED, "Failed"),
    }


def _message(kind: EventType, shape: str) -> Schema:
    return _record(
        type=_one_of("What it tells of.", kind),
        timestamp=_moment("When the request ended."),
        data=ref(shape),
    )


def _metrics() -> dict[str, Schema]:
    times = {
        "inference_time": _seconds("Seconds of work on it."),
        "queue_time": _seconds("Seconds it waited until it was last taken up."),
        "total_time": _seconds("Seconds from submit to end."),
        "retry_count": {"type": "integer", "minimum": 1, "description": "How often it was taken up again."},
    }
    required = ["cost", "remaining_credits", "inference_time", "queue_time", "total_time"]
    money = {"cost": _credits("Credits charged."), "remaining_credits": _credits("The key's balance just after.")}
    return {
        "Times": {"type": "object", "description": "Those that are known.", "properties": times},
        "ResultMetrics": {"type": "object", "required": required, "properties": money | times},
    }


def _account() -> dict[str, Schema]:
    listed: dict[str, Schema] = {LISTED: {"type": "array", "items": ref("Model")}}
    return {
        "Credits": _record(
            **{"credits": _credits("What the key can still spend."), "free-credits": _one_of("There are none.", 0)}
        ),
        "KeyInformation": _record(
            id=_text("The key's id."),
            name=_text("The key's name."),
            credits=_credits("What the key can still spend."),
            rate_per_minute={"type": ["integer", "null"], "description": "Requests a minute; null: no limit."},
            models={"type": ["array", "null"], "items": {"type": "string"}, "description": "Its models; null: all."},
        ),
        "Models": _record(**listed),
        "Model": _record(
            slug=_text("Its name in addresses."),
            title=_text("Its name for people."),
            type=_one_of("What it makes of what.", "image-to-image"),
            description=_text("What it does."),
            price=_credits("Credits a result costs."),
            parameters={"type": "object", "additionalProperties": ref("ModelParameter")},
        ),
        "Loras": _record(loras={"type": "array", "items": ref("Lora")}),
        "Lora": _record(
            name=_text("What `lora` may say."),
            trigger=_text("What the prompt has to say for it to work; empty for nothing."),
            scale={"type": "number", "description": "Its strength unless a request gives one."},
            installed={"type": "boolean", "description": "Whether its file is on this server."},
            digest={"type": ["string", "null"], "description": "SHA-256 of its file, where that is known."},
        ),
        "ModelParameter": _record(
            optional={
                "default": {"type": ["string", "number", "boolean"], "description": "What none stands for."},
                "minimum": {"type": "number", "description": "The least there may be."},
                "maximum": {"type": "number", "description": "The most there may be."},
                "enum": {"type": "array", "items": {"type": "string"}, "description": "All there may be."},
            },
            type=_one_of("What is sent as it.", *Kind),
            description=_text("What it does."),
            required={"type": "boolean", "description": "Whether the product page marks it as required."},
            extension={"type": "boolean", "description": "Whether it is Darkroom's own."},
        ),
    }


def _health() -> dict[str, Schema]:
    counts = {state: {"type": "integer", "minimum": 0} for state in State}
    return {
        "Live": _record(status=_one_of("The process answers.", "LIVE")),
        "Readiness": _record(
            status=_one_of("READY when the engine is loaded.", *Readiness),
            reason={"type": ["string", "null"], "description": "Why it is not READY, where that is known."},
            engine={"anyOf": [ref("Engine"), {"type": "null"}]},
            jobs={
                "type": "object",
                "description": "How many requests are in each state.",
                "required": [*State],
                "properties": counts,
            },
        ),
        "Engine": _record(
            checkpoint=_text("The model that is loaded."),
            device=_text("What it computes on."),
            dtype=_text("What it computes in."),
            gpus={"type": "integer", "description": "How many GPUs the machine has."},
        ),
    }


def _record(*, optional: dict[str, Schema] | None = None, **properties: Schema) -> Schema:
    return {"type": "object", "required": [*properties], "properties": {**properties, **(optional or {})}}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _id() -> Schema:
    return {"type": "string", "pattern": ID, "description": "The request's id."}


def _url(description: str) -> Schema:
    return {"type": "string", "format": "uri", "description": description}


def _moment(description: str) -> Schema:
    return {"type": "string", "format": "date-time", "description": description}


def _time(description: str) -> Schema:
    return _moment(description) | {"type": ["string", "null"]}


def _base64() -> Schema:
    return {"type": "string", "contentEncoding": "base64", "description": "The picture, where `base64` asked for it."}


def _one_of(description: str, *values: str | int | StrEnum) -> Schema:
    kind = "string" if isinstance(values[0], str) else "integer"
    return {"type": kind, "enum": [*values], "description": description}


def _seconds(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "description": description}


def _credits(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "description": description}
