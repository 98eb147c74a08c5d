"""A look at a model in training: one step on unseen scenes, against the truth and against what another prompt asks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from training.config import Config
from training.journal import sheet
from training.latents import Batch, Coder
from training.measure import changed_area, mean, psnr_db
from training.model import GRID, Editor
from training.pool import SCENES, make_shard, save
from training.vocabulary import Vocabulary
from training.world.draft import Sample
from training.world.jobs import Split, adapters

_EACH = 16
_SHOWN = 4


class Judge:
    """scenes: how many of each job are rendered to choose from."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        coder: Coder,
        vocabulary: Vocabulary,
        device: torch.device,
        scenes: Mapping[str, int] = SCENES,
    ) -> None:
        path = folder / "pool" / "judged-samples.pt"
        if not path.exists():
            shard = make_shard(Split.EVALUATE, config.seed, 0, device=device, scenes=scenes)
            save({"pictures": shard.pictures.cpu(), "samples": [asdict(sample) for sample in shard.samples]}, path)
        kept = torch.load(path, weights_only=True)
        self._pictures: Tensor = kept["pictures"]
        samples = [Sample(**{**record, "pictures": tuple(record["pictures"])}) for record in kept["samples"]]
        self._asked = {job: _spread([s for s in samples if s.job == job], _EACH) for job in scenes}
        self._rivals = {
            job: [next(iter(rivals_of(sample, samples)), None) for sample in asked]
            for job, asked in self._asked.items()
        }
        self._coder, self._vocabulary, self._device = coder, vocabulary, device

    @torch.no_grad()
    def figures(self, editor: Editor, folder: Path) -> dict[str, float]:
        """Per job `_db`: gain over the unchanged picture on the changed area; `_right`: how much nearer the right
        prompt's picture is than a rival's. Draws sheet.png."""
        found: dict[str, list[float]] = defaultdict(list)
        rows: list[tuple[str, list[Tensor]]] = []
        for job, asked in self._asked.items():
            truth, before = (self._pictures[[pick(s) for s in asked]] for pick in (lambda s: s.target, _first))
            made = self.make(editor, asked)
            area = changed_area(truth, before)
            gain = psnr_db(made, truth, area) - psnr_db(before, truth, area)
            group = "plus" if job.startswith("plus.") else job
            found[f"{group}_db"].append(mean(gain))
            paired = [(n, rival) for n, rival in enumerate(self._rivals[job]) if rival is not None]
            if paired:
                other = self.make(editor, [rival for _, rival in paired])
                kept = [n for n, _ in paired]
                found[f"{group}_right"].append(
                    mean(psnr_db(made[kept], truth[kept], area[kept]) - psnr_db(other, truth[kept], area[kept]))
                )
            for n, sample in enumerate(asked[:_SHOWN]):
                shown = [*(self._pictures[p] for p in sample.pictures), made[n], truth[n]]
                rows.append((f"{job}: {sample.prompt}", shown))
        sheet(rows, folder / "sheet.png")
        return {name: sum(values) / len(values) for name, values in found.items()}

    @torch.no_grad()
    def make(self, editor: Editor, asked: list[Sample]) -> Tensor:
        """The samples' pictures in one step, uint8. All of one job."""
        made = torch.empty(len(asked), *self._pictures.shape[1:], dtype=torch.uint8)
        for count in {len(sample.pictures) for sample in asked}:
            places = [n for n, sample in enumerate(asked) if len(sample.pictures) == count]
            batch = self._batch([asked[n] for n in places])
            noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(0)).to(self._device)
            moments = torch.ones(len(places), device=self._device)
            velocity = editor(batch, noise, moments, adapters(asked[0].job))
            made[places] = self._coder.decode(noise - velocity, *GRID).cpu()
        return made

    def _batch(self, asked: list[Sample]) -> Batch:
        rests = [self._vocabulary.rest(sample.prompt) for sample in asked]
        longest = max(map(len, rests))
        count = len(asked[0].pictures)
        latents = self._coder.encode(self._pictures[[p for sample in asked for p in sample.pictures]])
        pictures = torch.unflatten(latents, 0, (len(asked), count)).flatten(1, 2)
        device = self._device
        return Batch(
            opening=torch.tensor(self._vocabulary.opening(count), device=device),
            rest=torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests], device=device),
            padded=torch.tensor([[n >= len(rest) for n in range(longest)] for rest in rests], device=device),
            pictures=pictures,
            target=torch.zeros(len(asked), GRID[0] * GRID[1], latents.shape[-1]),
            changed=torch.zeros(0),
            count=count,
        )


def _first(sample: Sample) -> int:
    return sample.pictures[0]


def _spread(samples: list[Sample], count: int) -> list[Sample]:
    """So many, evenly over the scenes they come from."""
    return [samples[n * len(samples) // count] for n in range(min(count, len(samples)))]


def rivals_of(sample: Sample, samples: Sequence[Sample]) -> list[Sample]:
    """Those that ask another thing of the same first picture."""
    return [
        other
        for other in samples
        if other.job == sample.job
        and other.rivals == sample.rivals != ""
        and other.pictures[0] == sample.pictures[0]
        and other.target != sample.target
    ]
