"""Same request, same bytes: whatever ran before it, and whatever runs beside it."""

import hashlib
from contextlib import contextmanager
from itertools import permutations
from threading import Event, Thread

import pytest
import torch

from darkroom.edit import set_name
from darkroom.engine.engine import Engine
from darkroom.job import Stage
from darkroom.lora.convert import AdapterFile, convert
from edits import an_edit, some_pictures
from loras import LAYOUTS, MODULES, make_pairs, save, targets

EDITS = {
    "A": an_edit(pictures=2, seed=1),
    "B": an_edit(prompt="把天空变成红色", aspect_ratio=(2, 1), seed=2, steps=3),
    "C": an_edit(pictures=3, negative_prompt=None, aspect_ratio=(9, 16), seed=3),
}


def digest(engine, name):
    edit = EDITS[name]
    made = engine.edit(edit, some_pictures(len(edit.pictures)), lambda _: None)
    return hashlib.sha256(made.image.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def alone(tiny_checkpoint):
    """Each edit's bytes as the first thing a fresh engine does."""
    return {name: digest(Engine.load(tiny_checkpoint, device="cpu", dtype="float32"), name) for name in EDITS}


@contextmanager
def matmuls_beside(size=256):
    """Another thread that multiplies matrices without pause, and draws from the global generator."""
    done, begun = Event(), Event()

    def multiply():
        while not done.is_set():
            torch.randn(size, size) @ torch.randn(size, size)
            begun.set()

    thread = Thread(target=multiply)
    thread.start()
    try:
        assert begun.wait(timeout=10)
        yield
    finally:
        done.set()
        thread.join()


def test_edits_differ(alone):
    """Else the same bytes would prove nothing."""
    assert len(set(alone.values())) == len(EDITS)


@pytest.mark.parametrize("order", ["ABA", *map("".join, permutations("ABC"))])
def test_what_ran_before_changes_nothing(engine, alone, order):
    """In any order, and again after others, an edit gives the bytes that a fresh engine gives."""
    assert [digest(engine, name) for name in order] == [alone[name] for name in order]


def test_what_runs_beside_changes_nothing(engine, alone):
    """With another thread at work in torch all the while."""
    with matmuls_beside():
        assert [digest(engine, name) for name in "ABA"] == [alone[name] for name in "ABA"]


def test_another_engine_beside_changes_nothing(engine, tiny_checkpoint, alone):
    """Two engines in one process, at work at the same time, share nothing that shows."""
    found = []
    other = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
    thread = Thread(target=lambda: found.extend(digest(other, name) for name in "BC"))
    thread.start()
    here = [digest(engine, name) for name in "AB"]
    thread.join()
    assert here == [alone["A"], alone["B"]]
    assert found == [alone["B"], alone["C"]]


@pytest.fixture(scope="module")
def loras(tmp_path_factory):
    """Two files: one changes every module, one those within the blocks."""
    folder = tmp_path_factory.mktemp("loras")
    files = []
    matrices = [name for name in targets(top=False) if not name.endswith("mod.1")]
    for seed, names in ((1, targets()), (2, matrices)):
        path = save(folder / f"{seed}", LAYOUTS["diffusers"].write(make_pairs(names, seed=seed)))
        convert(path, folder / f"{seed}.canonical", MODULES)
        files.append(AdapterFile(path=folder / f"{seed}.canonical", digest=f"{seed}", strength=1.0))
    return files


def load(checkpoint):
    return Engine.load(checkpoint, device="cpu", dtype="float32")


def made(engine, edit, loras, observe=lambda _: None):
    prepared = engine.prepare(edit, some_pictures(len(edit.pictures)))
    return engine.make(edit, prepared, observe, loras).image.tobytes()


def test_loras_merged_ahead_change_no_pixel(tiny_checkpoint, loras):
    """Neither of the edit made meanwhile, nor of the one they are for, whose file is read no more."""
    first, second = EDITS["A"], EDITS["B"]
    alone = [made(load(tiny_checkpoint), edit, [lora]) for edit, lora in zip((first, second), loras, strict=True)]
    engine, begun = load(tiny_checkpoint), Event()

    def merge_ahead():
        begun.set()
        engine.merge_ahead(second, loras[1:])

    thread = Thread(target=merge_ahead)

    def observe(progress):
        if progress.stage == Stage.ENCODE:
            thread.start()
            assert begun.wait(timeout=10)

    here = made(engine, first, loras[:1], observe)
    thread.join()
    assert set_name(((loras[1].digest, 1.0),)) in engine.merged
    loras[1].path.unlink()
    assert [here, made(engine, second, loras[1:])] == alone
