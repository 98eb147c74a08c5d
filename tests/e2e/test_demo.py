"""`make demo`, as a newcomer runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

DEMO = Path(__file__).parents[2] / "scripts" / "demo.py"
PATIENCE_S = 240


def test_the_demo_ends_with_a_contact_sheet(tmp_path):
    """With no checkpoint named the service takes nano, and says so once with how to get the real one; five edits, one
    for each product page, are on the sheet, whose path is told; a photo is edited, too."""
    ran = subprocess.run(
        [sys.executable, DEMO, "--out", tmp_path / "demo"],
        env=os.environ | {"HF_HOME": str(tmp_path / "hub"), "DARKROOM_CHECKPOINT": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("this is nano") == ran.stdout.count("hf download Qwen/Qwen-Image-Edit-2509") == 1
    assert len(re.findall(r"^ +[\d.]+ s  qwen-image-edit-plus", ran.stdout, re.MULTILINE)) == 6
    sheet = tmp_path / "demo" / "sheet.png"
    assert f"The contact sheet: {sheet}\n" in ran.stdout
    made = sorted(path.name for path in sheet.parent.glob("*-edited.png"))
    assert made == [f"{name}-edited.png" for name in ("ball", "mug", "product", "scene", "sofa", "table")]
    with Image.open(sheet) as page, Image.open(sheet.parent / "sofa-edited.png") as result:
        assert result.size == (128, 128)
        assert page.height > 5 * 256
    text = sheet.with_suffix(".html").read_text()
    assert text.count("<section>") == 6
    assert text.count("data:image/") == 14
