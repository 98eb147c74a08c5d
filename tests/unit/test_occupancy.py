"""A data folder's services have one checkpoint."""

import subprocess
import sys

import pytest

from darkroom.errors import BadSetting
from darkroom.occupancy import occupy
from darkroom.settings import Settings


def test_several_services_of_one_checkpoint(tmp_path):
    """Any of them may make any job: they stand beside one another, by whatever path they name it."""
    (tmp_path / "model").mkdir()
    with occupy(Settings(data=tmp_path, checkpoint=str(tmp_path / "model"))):
        with occupy(Settings(data=tmp_path, checkpoint=f"{tmp_path}/./model")):
            pass
        with pytest.raises(BadSetting):
            occupy(Settings(data=tmp_path, checkpoint="another"))


@pytest.mark.parametrize("other", [{"checkpoint": "a/b"}, {"quality_tier": "fast"}, {"dtype": "float32"}])
def test_another_checkpoint_is_refused(tmp_path, other):
    """It would make other pictures of the first one's jobs; both are named. Once the first has gone, it may."""
    first = Settings(data=tmp_path, checkpoint="x/y")
    second = first.model_copy(update=other)
    with occupy(first), pytest.raises(BadSetting) as refused:
        occupy(second)
    assert "x/y" in refused.value.message
    assert str(second.checkpoint) in refused.value.message
    occupy(second).close()


def test_a_killed_service_holds_nothing(tmp_path):
    """What it held ends with its process."""
    program = f"""if True:
        import os, signal
        from darkroom.occupancy import occupy
        from darkroom.settings import Settings
        held = occupy(Settings(data={str(tmp_path)!r}, checkpoint="x/y"))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", program], check=False)
    occupy(Settings(data=tmp_path, checkpoint="another")).close()
