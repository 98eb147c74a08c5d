"""Shards of the pool as the transformer is trained on them: packed latents, tokens, and what each edit changes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from darkroom.engine.vae import TOKEN_PX, pack, unpack
from training.config import Config
from training.measure import changed_area, changed_tokens
from training.pool import SCENES, Shard, picture_shard, save
from training.vae_twin import VaeTwin, channels_last
from training.vocabulary import Vocabulary
from training.world.draft import Sample
from training.world.jobs import PRESETS


@dataclass(frozen=True, kw_only=True, slots=True)
class Coder:
    """The trained VAE with its latent statistics: pictures to normalised, packed latents and back."""

    twin: VaeTwin
    mean: Tensor
    std: Tensor

    @classmethod
    def load(cls, config: Config, finished: Path, device: torch.device) -> "Coder":
        state = torch.load(finished, weights_only=True)
        twin = channels_last(VaeTwin(config.vae).to(device))
        twin.load_state_dict(state["weights"])
        mean, std = (torch.tensor(state[name], device=device).view(1, -1, 1, 1) for name in ("mean", "std"))
        return cls(twin=twin.eval(), mean=mean, std=std)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """uint8, N × 3 × H × W → [N, tokens, channels], float32."""
        parts = []
        for part in torch.split(pictures, 16):
            real = part.to(self.mean.device, memory_format=torch.channels_last).float() / 127.5 - 1
            with torch.autocast(self.mean.device.type, torch.bfloat16):
                latents = self.twin.encode(real)
            parts.append(pack(((latents.float() - self.mean) / self.std).contiguous()))
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Inverse of `encode`."""
        parts = []
        for part in torch.split(tokens, 16):
            latents = unpack(part.float(), rows, columns) * self.std + self.mean
            with torch.autocast(self.mean.device.type, torch.bfloat16):
                made = self.twin.decode(latents.contiguous(memory_format=torch.channels_last))
            parts.append((made.float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8))
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Samples of one job. opening: [O]; rest: [B, R] tokens and padded: [B, R], where they are none; pictures, target:
    [B, tokens, channels], all pictures' tokens in a row; changed: [B, tokens]; count: of pictures."""

    opening: Tensor
    rest: Tensor
    padded: Tensor
    pictures: Tensor
    target: Tensor
    changed: Tensor
    count: int


class Pool:
    """All shards so far. What a job's samples need lies in one tensor per kind, grown shard by shard."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._latents: list[Tensor] = []
        self._changed: list[Tensor] = []
        self._entries: dict[tuple[str, int], list[tuple[int, int, Sample, list[int]]]] = defaultdict(list)
        self.shards = 0

    def grow(self, shard: Shard, latents: Tensor, changed: Tensor) -> None:
        """latents: of the shard's pictures; changed: of its samples."""
        for place, sample in enumerate(shard.samples):
            key = (sample.job, len(sample.pictures))
            self._entries[key].append((self.shards, place, sample, self._vocabulary.rest(sample.prompt)))
        self._latents.append(latents)
        self._changed.append(changed)
        self.shards += 1

    def draw(self, job: str, size: int, draw: torch.Generator, *, unprompted: float = 0.0) -> Batch:
        """Random samples of a job that have the same number of pictures. job "unadapted": any preset's, whose right
        answer is picture 1 as it was. unprompted: the share of prompts that are left blank."""
        refused = job == "unadapted"
        if refused:
            job = PRESETS[int(torch.randint(len(PRESETS), (), generator=draw))]
        keys = [key for key in self._entries if key[0] == job]
        sizes = torch.tensor([len(self._entries[key]) for key in keys], dtype=torch.float)
        entries = self._entries[keys[int(torch.multinomial(sizes, 1, generator=draw))]]
        chosen = [entries[n] for n in torch.randint(len(entries), (size,), generator=draw).tolist()]
        blank = (torch.rand(size, generator=draw) < unprompted).tolist()
        return self._batch(chosen, blank, refused=refused)

    def _batch(self, chosen: list[tuple[int, int, Sample, list[int]]], blank: list[bool], *, refused: bool) -> Batch:
        nothing = self._vocabulary.rest(" ")
        rests = [nothing if bare else rest for bare, (*_, rest) in zip(blank, chosen, strict=True)]
        longest = -(-max(map(len, rests)) // 4) * 4
        lengths = torch.tensor([len(rest) for rest in rests])
        count = len(chosen[0][2].pictures)
        pictures = torch.stack(
            [torch.cat([self._latents[s][p] for p in sample.pictures]) for s, _, sample, _ in chosen]
        )
        target = torch.stack([self._latents[s][sample.target] for s, _, sample, _ in chosen])
        changed = torch.stack([self._changed[s][place] for s, place, *_ in chosen])
        if refused:
            target, changed = pictures[:, : target.shape[1]], torch.zeros_like(changed)
        return Batch(
            opening=torch.tensor(self._vocabulary.opening(count)),
            rest=torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests]),
            padded=torch.arange(longest) >= lengths[:, None],
            pictures=pictures.float(),
            target=target.float(),
            changed=changed,
            count=count,
        )


def add_shard(
    pool: Pool,
    config: Config,
    folder: Path,
    number: int,
    coder: Coder,
    device: torch.device,
    scenes: Mapping[str, int] = SCENES,
) -> None:
    """Puts training shard `number` into the pool, rendering and encoding it unless its latents are kept."""
    path = folder / "pool" / f"latents-{number:04d}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        samples = tuple(Sample(**{**record, "pictures": tuple(record["pictures"])}) for record in kept["samples"])
        pool.grow(Shard(pictures=torch.empty(0), samples=samples), kept["latents"], kept["changed"])
        return
    shard = picture_shard(folder / "pool", config.seed, number, device=device, scenes=scenes)
    latents = coder.encode(shard.pictures).bfloat16().cpu()
    truth = shard.pictures[[sample.target for sample in shard.samples]].cpu()
    before = shard.pictures[[sample.pictures[0] for sample in shard.samples]].cpu()
    changed = changed_tokens(changed_area(truth, before), TOKEN_PX)
    records = [
        {"job": s.job, "pictures": s.pictures, "prompt": s.prompt, "target": s.target, "rivals": s.rivals}
        for s in shard.samples
    ]
    save({"latents": latents, "changed": changed, "samples": records}, path)
    if number >= config.vae_recipe.shards:
        (folder / "pool" / f"pictures-{number:04d}.pt").unlink(missing_ok=True)
    pool.grow(shard, latents, changed)
