from darkroom.catalogue import read_catalogue
from darkroom.cli.models import complete_slug


def test_every_model_is_listed(darkroom):
    """The table has a line for each card."""
    ran = darkroom("models")
    assert [line.split()[0] for line in ran.out.splitlines()[1:]] == list(read_catalogue())


def test_show_has_every_parameter(darkroom):
    """A model's page has each parameter with its default, its bounds and what it is for."""
    ran = darkroom("models", "show", "qwen-image-edit-plus")
    assert ran.code == 0
    for name, parameter in read_catalogue()["qwen-image-edit-plus"].parameters.items():
        line = next(line for line in ran.out.splitlines() if line.startswith(f"{name} "))
        assert parameter.type in line
        assert parameter.allowed.split()[0] in line


def test_an_unknown_model_is_refused(darkroom):
    """The message names it and where to look."""
    ran = darkroom("models", "show", "nope")
    assert ran.code == 2
    assert "nope" in ran.err
    assert "darkroom models" in ran.err


def test_the_shell_completes_slugs():
    """The models' names need not be typed in full."""
    assert complete_slug("qwen-image-edit-plus-te") == [
        "qwen-image-edit-plus-texture-apply",
        "qwen-image-edit-plus-texture-extract",
    ]
