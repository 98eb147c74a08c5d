"""The pages of docs/ that scripts write from the code."""

import re
import runpy
from pathlib import Path

import pytest

from darkroom.catalogue import read_catalogue

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["errors", "sizes"])
def test_the_page_says_what_the_code_says(name: str) -> None:
    """What `make docs` would write is what stands there."""
    script = runpy.run_path(str(ROOT / "scripts" / f"{name}_page.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"](), "run make docs"


def test_make_docs_writes_every_page() -> None:
    """No page is left behind when the rest is written anew."""
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"scripts/(\w+_page\.py)", makefile)) == {
        path.name for path in (ROOT / "scripts").glob("*_page.py")
    }


def test_every_ratio_has_its_size() -> None:
    """The table of sizes has all the ratios that any model takes."""
    page = (ROOT / "docs" / "sizes.md").read_text(encoding="utf-8")
    ratios = {name for card in read_catalogue().values() for name in card.parameters["aspect_ratio"].enum}
    assert set(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE)) == ratios - {"match_input_image"}
