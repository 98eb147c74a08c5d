"""Whether edits mean what was asked: few scenes, few steps, held against the renderer's truth.

`PYTHONPATH=tests python -m meaning.judgement [CHECKPOINT]` prints what a checkpoint does, for `MEASURED`.
"""

import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from darkroom.checkpoint.declaration import read_declaration
from darkroom.checkpoint.locate import NANO
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.engine.engine import Engine
from darkroom.lora.base import Base
from darkroom.lora.convert import AdapterFile, convert
from training.config import Config
from training.evaluation.scenes import Asked, Scene, make_scene, to_image, to_tensor
from training.measure import changed_area, psnr_db
from training.world.jobs import JOBS, adapters

SCENES = 3
"""Of a job."""
STEPS = 4
SEED = 1
NEGATIVE = " "
SHARE = 2 / 3
"""How much of what it did when it was measured a checkpoint must still do: a margin for other processors."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A job's means over its scenes, in dB of PSNR to the truth on the changed area. gain: over the unchanged picture.
    right: over what another prompt gives, or another second picture; None where nothing else is to be asked."""

    gain: float
    right: float | None = None

    def holds(self, job: str, share: float = SHARE) -> bool:
        """Whether that is enough of what was measured."""
        once = MEASURED[job]
        if self.gain < share * once.gain:
            return False
        return once.right is None or (self.right is not None and self.right >= share * once.right)


MEASURED = {
    "plus.recolour": Verdict(gain=17.1, right=16.9),
    "plus.erase": Verdict(gain=25.6, right=25.2),
    "plus.add": Verdict(gain=14.3, right=14.4),
    "plus.floor": Verdict(gain=14.4, right=13.5),
    "plus.light": Verdict(gain=16.4, right=18.7),
    "plus.seat": Verdict(gain=8.1, right=5.4),
    "multiple_angle": Verdict(gain=10.7, right=10.6),
    "product_photography": Verdict(gain=18.5, right=13.3),
    "texture_apply": Verdict(gain=8.1, right=11.2),
    "texture_extract": Verdict(gain=11.0),
    "eigen_banana": Verdict(gain=16.4, right=18.7),
    "blend_it": Verdict(gain=9.4),
    "relight": Verdict(gain=10.2, right=10.2),
    "remove_lighting": Verdict(gain=13.5),
    "next_scene": Verdict(gain=8.6, right=10.4),
    "group_photo": Verdict(gain=20.8, right=14.1),
    "add_people": Verdict(gain=12.5, right=10.6),
    "face_to_portrait": Verdict(gain=22.0, right=17.9),
    "eraser": Verdict(gain=20.5),
    "pair": Verdict(gain=17.5, right=18.9),
}
"""What the shipped checkpoint does."""


def unseen(job: str) -> list[Scene]:
    return [make_scene(job, number, seed=Config().seed, compiled=False) for number in range(SCENES)]


class Editor:
    """A checkpoint's engine, and its LoRAs as a worker has them."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        """folder: for what is made of the LoRAs."""
        self.engine = Engine.load(checkpoint, device="cpu")
        modules = Base(str(checkpoint)).known_modules()
        self.loras: Mapping[str, AdapterFile] = {}
        for name, file in read_declaration(checkpoint).loras.items():
            path = folder / file.name
            convert(file, path, modules)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            self.loras[name] = AdapterFile(path=path, digest=digest, strength=1.0)

    def edit(self, asked: Asked, job: str, *, guidance: float = 1.0) -> torch.Tensor:
        edit = Edit(
            prompt=asked.prompt,
            negative_prompt=NEGATIVE,
            pictures=tuple(PictureRef(field=f"image_{n + 1}", blob="none") for n in range(len(asked.pictures))),
            aspect_ratio=None,
            seed=SEED,
            num_inference_steps=STEPS,
            true_cfg_scale=guidance,
            output=Output(format=ImageFormat.PNG, quality=100),
        )
        prepared = self.engine.prepare(edit, [to_image(picture) for picture in asked.pictures])
        loras = [self.loras[name] for name in adapters(job)]
        return to_tensor(self.engine.make(edit, prepared, lambda _: None, loras).image)

    def judge(self, scenes: Sequence[Scene], *, guidance: float = 1.0) -> Verdict:
        """The scenes of one job."""
        truth = torch.stack([scene.asked.truth for scene in scenes])
        before = torch.stack([scene.before for scene in scenes])
        area = changed_area(truth, before)

        def edited(asked: Sequence[Asked]) -> torch.Tensor:
            made = [self.edit(one, scene.job, guidance=guidance) for one, scene in zip(asked, scenes, strict=True)]
            return psnr_db(torch.stack(made), truth, area)

        right = edited([scene.asked for scene in scenes])
        ahead = None
        if all(scene.rivals for scene in scenes):
            ahead = float((right - edited([scene.rivals[0] for scene in scenes])).mean())
        return Verdict(gain=float((right - psnr_db(before, truth, area)).mean()), right=ahead)


def main() -> None:
    checkpoint = Path(sys.argv[1]) if sys.argv[1:] else NANO
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor(checkpoint, Path(folder))
        for job in JOBS:
            verdict = editor.judge(unseen(job))
            right = "" if verdict.right is None else f", right={verdict.right:.1f}"
            print(f'    "{job}": Verdict(gain={verdict.gain:.1f}{right}),', flush=True)  # noqa: T201  what it is for


if __name__ == "__main__":
    main()
