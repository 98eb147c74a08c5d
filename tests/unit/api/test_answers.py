from dataclasses import replace

import pytest

from darkroom.api import answers
from darkroom.api.context import Addresses
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.job import Failure, Job, Progress, Result, Stage, State
from darkroom.links import Links

AT = Addresses(base="https://pictures.example", links=Links(b"s" * 32))
EDIT = Edit(
    prompt="把它变成蓝色",
    negative_prompt=None,
    pictures=(PictureRef(field="image", blob="in"),),
    aspect_ratio=None,
    seed=2**53 + 1,
    num_inference_steps=8,
    true_cfg_scale=1.0,
    output=Output(format=ImageFormat.WEBP, quality=90),
)
QUEUED = Job(
    id="j1",
    key_id="k1",
    slug="qwen-image-edit-plus",
    edit=EDIT,
    price_micro=30_000,
    state=State.QUEUED,
    attempt=0,
    fence=0,
    cancel_requested=False,
    progress=None,
    created_at=1000.0,
    started_at=None,
    ended_at=None,
    expires_at=None,
    remaining_micro=None,
    result=None,
    failure=None,
)
PROCESSING = replace(
    QUEUED,
    state=State.PROCESSING,
    attempt=1,
    started_at=1000.5,
    progress=Progress(stage=Stage.DENOISE, step=3, steps=8),
)
COMPLETED = replace(
    PROCESSING,
    state=State.COMPLETED,
    progress=None,
    ended_at=1013.5619,
    expires_at=4613.5619,
    remaining_micro=1_970_000,
    result=Result(
        blob="b",
        content_type="image/webp",
        size_bytes=123456,
        width_px=1024,
        height_px=768,
        timings_s={"denoise": 12.5, "decode": 0.56},
    ),
)
FAILED = replace(
    PROCESSING,
    state=State.FAILED,
    progress=None,
    ended_at=1002.0,
    expires_at=4602.0,
    remaining_micro=2_000_000,
    failure=Failure(code="image_unreachable", message="image could not be fetched", field="image"),
)


def test_completed() -> None:
    """The whole body, to the letter: seed and size as text, times to the millisecond, money in credits."""
    url = AT.links.path("files", "j1", "qwen-image-edit-plus-9007199254740993.webp", expires_at=4613.5619)
    assert answers.completed(COMPLETED, AT, picture=None) == {
        "status": "COMPLETED",
        "error": None,
        "request_id": "j1",
        "output": f"https://pictures.example{url}",
        "images": [
            {
                "url": f"https://pictures.example{url}",
                "content_type": "image/webp",
                "file_name": "qwen-image-edit-plus-9007199254740993.webp",
                "file_size": "123456",
                "width": 1024,
                "height": 768,
            }
        ],
        "seed": "9007199254740993",
        "prompt": "把它变成蓝色",
        "timings": {"inference": 13.06, "denoise": 12.5, "decode": 0.56},
        "metrics": {
            "cost": 0.03,
            "remaining_credits": 1.97,
            "inference_time": 13.06,
            "queue_time": 0.5,
            "total_time": 13.562,
        },
    }


def test_what_came_before_the_job_is_told_apart() -> None:
    """What resolving LoRAs took is among the timings, and no part of the work; without any it is not there."""
    resolved = answers.completed(replace(COMPLETED, resolve_s=0.1234), AT, picture=None)
    assert resolved["timings"] == {"inference": 13.06, "resolve": 0.123, "denoise": 12.5, "decode": 0.56}
    assert resolved["metrics"] == answers.completed(COMPLETED, AT, picture=None)["metrics"]


def test_a_retry_is_counted() -> None:
    """Only where there was one."""
    again = replace(COMPLETED, attempt=3)
    assert answers.completed(again, AT, picture=None)["metrics"]["retry_count"] == 2
    assert answers.status(again, AT)["metrics"]["retry_count"] == 2
    assert "retry_count" not in answers.status(COMPLETED, AT)["metrics"]


def test_warnings_are_passed_on() -> None:
    """Only where there are some."""
    assert COMPLETED.result
    warned = replace(COMPLETED, result=replace(COMPLETED.result, warnings=("image: first frame of 12",)))
    assert answers.completed(warned, AT, picture=None)["warnings"] == ["image: first frame of 12"]


def test_status() -> None:
    """Addresses and progress while it is on its way, times once it has ended."""
    on_its_way = {
        "request_id": "j1",
        "status_url": "https://pictures.example/v2/requests/j1/status",
        "response_url": "https://pictures.example/v2/requests/j1",
        "metrics": {},
    }
    assert answers.status(QUEUED, AT) == {"status": "QUEUED", **on_its_way}
    assert answers.status(PROCESSING, AT) == {
        "status": "PROCESSING",
        **on_its_way,
        "progress": {"stage": "denoise", "step": 3, "steps": 8},
    }
    times = {"inference_time": 13.06, "queue_time": 0.5, "total_time": 13.562}
    assert answers.status(COMPLETED, AT) == {"status": "COMPLETED", "request_id": "j1", "metrics": times}


def test_failed() -> None:
    """The reason and the times, and no cost: there was none."""
    assert answers.status(FAILED, AT) == {
        "status": "FAILED",
        "request_id": "j1",
        "error": "image could not be fetched",
        "code": "image_unreachable",
        "field": "image",
        "metrics": {"queue_time": 0.5, "total_time": 2.0},
    }


def test_cancelled_in_the_queue() -> None:
    """A job that never ran has no queue time."""
    failure = Failure(code="cancelled", message="cancelled")
    cancelled = replace(QUEUED, state=State.FAILED, ended_at=1003.25, failure=failure)
    assert answers.status(cancelled, AT)["metrics"] == {"total_time": 3.25}


@pytest.mark.parametrize("job", [QUEUED, PROCESSING, FAILED])
def test_what_has_no_result_is_not_answered_with_one(job: Job) -> None:
    """It is our own mistake to ask."""
    with pytest.raises(ValueError, match="has no result"):
        answers.completed(job, AT, picture=None)
