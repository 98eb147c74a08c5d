"""What a worker's C libraries are told."""

import pytest

from darkroom.worker.environment import ENVIRONMENT, environment


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in (*ENVIRONMENT, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_an_operators_choice_stands(variable, monkeypatch):
    """A variable that is set already is passed on as it is; the others are added."""
    monkeypatch.setenv(variable, "chosen")
    assert environment().items() >= {**ENVIRONMENT, variable: "chosen"}.items()


def test_an_operator_chooses_how_threads_wait_by_the_standards_name_too(monkeypatch):
    """GNU's own variable would win over it, so it is not told."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    told = environment()
    assert told["OMP_WAIT_POLICY"] == "active"
    assert ENVIRONMENT.keys() - told.keys() == {"GOMP_SPINCOUNT"}


def test_the_rest_of_the_environment_is_passed_on(monkeypatch):
    """A worker finds its caches and proxies where the service does."""
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert environment()["HF_HOME"] == "/somewhere"
