"""What each side of the benchmark is told of threads and memory."""

import pytest

from benchmarks.elsewhere import ALIKE, COMPILED, OURS, REFERENCE, environment
from darkroom.worker.environment import ENVIRONMENT


@pytest.mark.parametrize("side", [OURS, ALIKE])
def test_ours_and_the_reference_alike_are_told_what_workers_are(side, monkeypatch):
    """Whatever the benchmark itself was told."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert environment(side).items() >= ENVIRONMENT.items()


@pytest.mark.parametrize("side", [REFERENCE, COMPILED])
def test_the_reference_as_it_comes_is_told_nothing(side, monkeypatch):
    """As whoever runs the pipeline by its own instructions has it."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert not environment(side).keys() & {*ENVIRONMENT, "OMP_WAIT_POLICY"}


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_one_thing_is_taken_away_alone(variable):
    assert environment(OURS).keys() - environment(OURS, without=variable).keys() == {variable}
