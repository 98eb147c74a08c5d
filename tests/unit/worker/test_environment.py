"""What a worker's C libraries are told."""

from darkroom.worker.environment import ENVIRONMENT, environment


def test_an_operators_choice_stands(monkeypatch):
    """A variable that is set already is passed on as it is; the others are added."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert environment().items() >= {**ENVIRONMENT, "OMP_WAIT_POLICY": "active"}.items()


def test_the_rest_of_the_environment_is_passed_on(monkeypatch):
    """A worker finds its caches and proxies where the service does."""
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert environment()["HF_HOME"] == "/somewhere"
