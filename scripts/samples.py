"""Writes samples/*.png and samples/edits.json: what `make demo` sends, an edit for each product page.

The scenes are those of the renderer that the small checkpoint was trained with, of the split that training never sees:
for each edit the first scene in which its prompt may be asked, whatever comes of it.
"""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.world.draft import Draft, Sample
from training.world.jobs import Split, draft

FOLDER = Path(__file__).parent.parent / "samples"
SEED = 28
"""Not the evaluation's. Chosen for inputs that are easily told apart, before any edit of them had been made."""

EDITS: dict[str, dict[str, Any]] = {
    "plus.seat": {
        "slug": "qwen-image-edit-plus",
        "prompt": "The woman from image 2 is sitting on the sofa, smiling and waving, in the scene from image 1",
        "pictures": ["sofa.png", "woman.png"],
    },
    "pair": {
        "slug": "qwen-image-edit-plus-multi-lora",
        "prompt": "Rotate the camera 90 degrees to the left. Apply a sepia vintage filter.",
        "pictures": ["ball.png"],
        "lora": "multiple_angle",
        "lora_2": "eigen_banana",
    },
    "multiple_angle": {
        "slug": "qwen-image-edit-plus-multiple-angle",
        "prompt": "Turn the camera to a top-down view.",
        "pictures": ["table.png"],
    },
    "product_photography": {
        "slug": "qwen-image-edit-plus-product-photography",
        "prompt": "Convert the white background image to a scene and place the sofa in the picture in a modern living "
        "room",
        "pictures": ["product.png"],
    },
    "texture_apply": {
        "slug": "qwen-image-edit-plus-texture-apply",
        "prompt": "Apply the texture of image 2 to the mug.",
        "pictures": ["scene.png", "texture.png"],
    },
}
"""By the renderer's job. lora_2: the LoRA of this name, to be sent by its address."""


def main() -> None:
    for job, edit in EDITS.items():
        made, sample = find(job, edit["prompt"])
        pictures = made.develop(torch.device("cpu"), compiled=False)
        for name, place in zip(edit["pictures"], sample.pictures, strict=True):
            Image.fromarray(pictures[place].permute(1, 2, 0).numpy()).save(FOLDER / name, optimize=True)
        sys.stdout.write(f"{edit['slug']}: {', '.join(edit['pictures'])}\n")
    (FOLDER / "edits.json").write_text(json.dumps([*EDITS.values()], indent=2) + "\n", encoding="utf-8")


def find(job: str, prompt: str) -> tuple[Draft, Sample]:
    """The first unseen scene of the job that has such a sample, and the sample."""
    for number in count():
        made = draft(job, Split.EVALUATE, SEED, number)
        if sample := next((sample for sample in made.samples if sample.prompt == prompt), None):
            return made, sample
    raise AssertionError("there is always another scene")


if __name__ == "__main__":
    main()
