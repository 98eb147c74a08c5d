import hashlib
import subprocess
import sys
from unittest.mock import patch

import pytest
import torch
from PIL import ImageChops, ImageStat

from darkroom.engine.engine import Engine, make_noise
from darkroom.errors import BadSetting, JobCancelled, OutOfMemory, PictureInvalid
from darkroom.job import Progress, Stage
from edits import a_picture, an_edit, some_pictures


def digest(made):
    return hashlib.sha256(made.image.tobytes()).hexdigest()


def ignore(_):
    pass


def test_progress_runs_through_every_stage_and_step(engine):
    """Each stage is told of as it is entered, each step as it is done."""
    told = []
    made = engine.edit(an_edit(steps=3), some_pictures(1), told.append)
    assert told == [
        Progress(stage=Stage.PREPARE, step=0, steps=3),
        Progress(stage=Stage.ENCODE, step=0, steps=3),
        *(Progress(stage=Stage.DENOISE, step=step, steps=3) for step in range(4)),
        Progress(stage=Stage.DECODE, step=3, steps=3),
    ]
    assert list(made.timings_s) == ["prepare", "encode", "denoise", "decode"]
    assert all(seconds > 0 for seconds in made.timings_s.values())
    assert made.image.mode == "RGB"


def test_the_same_request_gives_the_same_bytes_whatever_ran_before(engine):
    """Other edits, of other sizes, before and after change nothing."""
    edit, pictures = an_edit(pictures=2), some_pictures(2)
    first = digest(engine.edit(edit, pictures, ignore))
    engine.edit(an_edit(seed=9, aspect_ratio=(2, 1), true_cfg_scale=1), [a_picture(64, 30)], ignore)
    torch.manual_seed(7)
    assert digest(engine.edit(edit, pictures, ignore)) == first


@pytest.mark.parametrize(
    "change",
    [{"seed": 2}, {"prompt": "Make it snow"}, {"negative_prompt": "snow"}, {"true_cfg_scale": 2.0}, {"steps": 3}],
)
def test_every_part_of_a_request_counts(engine, change):
    """Another seed, prompt, negative prompt, scale or number of steps makes another picture."""
    pictures = some_pictures(1)
    plain = engine.edit(an_edit(), pictures, ignore)
    assert digest(engine.edit(an_edit(**change), pictures, ignore)) != digest(plain)


def test_the_order_of_pictures_counts(engine):
    """Picture 1 and picture 2 are told apart."""
    one, two = a_picture(80, 80), a_picture(80, 80).rotate(90)
    edit = an_edit(pictures=2)
    assert digest(engine.edit(edit, [one, two], ignore)) != digest(engine.edit(edit, [two, one], ignore))


def test_a_fresh_process_makes_the_same_bytes(engine, tiny_checkpoint):
    """The same request in another process gives the same picture."""
    here = digest(engine.edit(an_edit(), some_pictures(1), ignore))
    code = (
        "import sys, hashlib, torch; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        "from edits import an_edit, some_pictures; from darkroom.engine.engine import Engine\n"
        "engine = Engine.load(Path(sys.argv[1]), device='cpu', dtype='float32')\n"
        "made = engine.edit(an_edit(), some_pictures(1), lambda _: None)\n"
        "print(hashlib.sha256(made.image.tobytes()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(tiny_checkpoint), *sys.path], check=True, capture_output=True, text=True
    )
    assert there.stdout.strip() == here


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.ENCODE, Stage.DENOISE, Stage.DECODE])
def test_an_edit_broken_off_leaves_the_engine_as_it_was(engine, stage):
    """What `observe` raises comes through, and the next edit gives the picture it would have given."""
    edit, pictures = an_edit(), some_pictures(1)
    before = digest(engine.edit(edit, pictures, ignore))

    def cancel(progress):
        if progress.stage == stage and (stage != Stage.DENOISE or progress.step == 1):
            raise JobCancelled("cancelled")

    with pytest.raises(JobCancelled):
        engine.edit(edit, pictures, cancel)
    assert digest(engine.edit(edit, pictures, ignore)) == before


def test_an_unguided_edit_looks_at_no_negative_prompt(engine):
    """At scale 1, or without a negative prompt, a step is one forward pass."""
    passes = []
    hook = engine._models.transformer.register_forward_hook(lambda *_: passes.append(1))
    pictures = some_pictures(1)
    one = engine.edit(an_edit(true_cfg_scale=1.0), pictures, ignore)
    none = engine.edit(an_edit(negative_prompt=None), pictures, ignore)
    hook.remove()
    assert len(passes) == 4
    assert digest(one) == digest(none)


def test_a_sliver_fails_its_job_alone(engine):
    """An unusable picture is the job's error, by its field."""
    with pytest.raises(PictureInvalid) as caught:
        engine.edit(an_edit(), [a_picture(1, 3000)], ignore)
    assert caught.value.field == "image_1"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_running_out_of_memory_is_told_as_such(engine, error):
    """Every way in which memory runs out is one error of the job."""
    with (
        patch.object(engine._models.vae, "encode", side_effect=error),
        pytest.raises(OutOfMemory, match="not enough memory"),
    ):
        engine.edit(an_edit(), some_pictures(1), ignore)


def test_other_errors_are_not_taken_for_it(engine):
    """A fault of the program stays one."""
    with (
        patch.object(engine._models.vae, "encode", side_effect=RuntimeError("shapes do not match")),
        pytest.raises(RuntimeError, match="shapes"),
    ):
        engine.edit(an_edit(), some_pictures(1), ignore)


def test_bfloat16_makes_nearly_the_same_picture(engine, tiny_checkpoint):
    """The precision moves the picture, but far less than another seed does."""
    coarse = Engine.load(tiny_checkpoint, device="cpu", dtype="bfloat16")
    assert (coarse.device, coarse.dtype) == ("cpu", "bfloat16")
    assert (engine.device, engine.dtype) == ("cpu", "float32")
    pictures = some_pictures(1)
    fine = engine.edit(an_edit(), pictures, ignore).image

    def distance(other):
        return max(ImageStat.Stat(ImageChops.difference(fine, other.image)).mean)

    other_seed = distance(engine.edit(an_edit(seed=2), pictures, ignore))
    assert distance(coarse.edit(an_edit(), pictures, ignore)) < other_seed / 4


def test_noise_is_the_seeds_alone():
    """The same seed draws the same noise, and neither global seed nor number of pictures has a say."""
    torch.manual_seed(3)
    one = make_noise(5, 4, 6, channels=16)
    torch.manual_seed(4)
    assert torch.equal(one, make_noise(5, 4, 6, channels=16))
    assert one.shape == (1, 24, 64)


def test_a_device_that_is_not_there_is_refused(tiny_checkpoint):
    """The error names the device asked for."""
    with pytest.raises(BadSetting, match="cuda:99"):
        Engine.load(tiny_checkpoint, device="cuda:99")


def test_what_was_encoded_is_not_encoded_again(tiny_checkpoint, engine):
    """The same pictures are looked at and coded once, the same prompt on them read once; the picture is the same."""
    keeping = Engine.load(tiny_checkpoint, device="cpu", dtype="float32", memo_bytes=2**20)
    text, vae = keeping._models.text, keeping._models.vae
    pictures = some_pictures(2)
    plain, other = an_edit(pictures=2), an_edit(pictures=2, prompt="Make the sky green")
    with (
        patch.object(text, "look", side_effect=text.look) as look,
        patch.object(text, "encode", side_effect=text.encode) as encode,
        patch.object(vae, "encode", side_effect=vae.encode) as code,
    ):
        for edit in (plain, other, plain):
            assert digest(keeping.edit(edit, pictures, ignore)) == digest(engine.edit(edit, pictures, ignore))
        assert (look.call_count, encode.call_count, code.call_count) == (1, 3, 2)
        keeping.edit(plain, pictures[::-1], ignore)
        assert (look.call_count, encode.call_count, code.call_count) == (2, 5, 2)


def test_both_prompts_share_one_look_at_the_pictures(engine):
    """Also where nothing is kept from one edit to the next."""
    text = engine._models.text
    with patch.object(text, "look", side_effect=text.look) as look:
        engine.edit(an_edit(), some_pictures(1), ignore)
    assert look.call_count == 1


def test_a_checkpoint_that_does_not_fit_is_refused_with_figures(tiny_checkpoint):
    """Before anything is loaded."""
    with pytest.raises(BadSetting, match=r"does not fit: cpu has 1\.0 GB; it takes 1\.\d GB"):
        Engine.load(tiny_checkpoint, device="cpu", memory_gb=1.0)


def test_warming_up_leaves_the_engine_as_it_was(engine):
    before = digest(engine.edit(an_edit(), some_pictures(1), ignore))
    engine.warm()
    assert digest(engine.edit(an_edit(), some_pictures(1), ignore)) == before
