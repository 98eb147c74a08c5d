import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.job import Stage
from darkroom.settings import Settings
from darkroom.worker.messages import (
    Advanced,
    Configure,
    Drain,
    Message,
    Ready,
    Released,
    SetupFailed,
    Wake,
    from_line,
    to_line,
)

TEXT = st.text()
STEPS = st.integers(0, 100)
MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Configure: st.builds(Configure, worker=TEXT, settings=st.dictionaries(TEXT, TEXT | STEPS | st.none())),
    Wake: st.builds(Wake),
    Drain: st.builds(Drain, grace_s=st.floats(0, 1e6)),
    Ready: st.builds(Ready, checkpoint=TEXT, device=TEXT, dtype=TEXT),
    SetupFailed: st.builds(SetupFailed, reason=TEXT),
    Advanced: st.builds(Advanced, job_id=TEXT, stage=st.sampled_from(Stage), step=STEPS, steps=STEPS),
    Released: st.builds(Released, job_id=TEXT),
}


def test_all_are_here() -> None:
    """Every message there is is tried below."""
    assert set(MESSAGES) == set(typing.get_args(Message))


@given(st.one_of(*MESSAGES.values()))
def test_a_line_is_the_message(message: Message) -> None:
    """A message is one line, whatever text is in it, and reads back as itself."""
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    read = from_line(line)
    assert read == message
    assert type(read) is type(message)


def test_a_stage_stays_a_stage() -> None:
    """It has not become its name."""
    read = from_line(to_line(Advanced(job_id="a", stage=Stage.DENOISE, step=3, steps=8)))
    assert isinstance(read, Advanced)
    assert isinstance(read.stage, Stage)


def test_settings_travel_whole() -> None:
    """A worker is configured with the very settings that the service has read."""
    settings = Settings(fetch_allow=("a:1",), retention_s=5)
    read = from_line(to_line(Configure(worker="w", settings=settings.model_dump(mode="json"))))
    assert isinstance(read, Configure)
    assert Settings(**read.settings) == settings


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Loading weights\n",
        b"\xff\n",
        b"null\n",
        b"[]\n",
        b'"Wake"\n',
        b"{}\n",
        b'{"kind": "Wakeup"}\n',
        b'{"kind": ["Wake"]}\n',
        b'{"kind": "Wake", "job_id": "a"}\n',
        b'{"kind": "Cancel"}\n',
        b'{"kind": "Advanced", "job_id": "a", "stage": "dream", "step": 0, "steps": 1}\n',
        b'{"kind": "Advanced", "job_id": "a"}\n',
        b'{"kind": "Wake"}{"kind": "Wake"}\n',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    """What is no message, a library's print for one, raises ValueError and nothing else."""
    with pytest.raises(ValueError, match="not a message"):
        from_line(line)
