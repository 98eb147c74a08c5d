"""Trains the VAE on the world's pictures."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from training.config import Config, VaeRecipe
from training.journal import Journal, sheet
from training.optimiser import Optimiser
from training.pool import make_shard, picture_shard, save
from training.vae_twin import Norm, VaeTwin, channels_last
from training.world.jobs import Split

_REPORT_EVERY = 50
_JUDGE_EVERY = 250
_JUDGED = 128


def train_vae(config: Config, folder: Path, *, device: torch.device, compiled: bool = True) -> Path:
    """Trains to the end, or from where it was left. Returns the file with averaged weights and latent statistics."""
    finished = folder / "vae" / "finished.pt"
    if finished.exists():
        return finished
    recipe = config.vae_recipe
    pictures = torch.cat(
        [picture_shard(folder / "pool", config.seed, n, device=device).pictures for n in range(recipe.shards)]
    )
    judged = _judged(config, folder, device)
    run = VaeRun(config, folder, device=device, compiled=compiled)
    while run.step < recipe.steps:
        loss = run.advance(pictures)
        if run.step % _REPORT_EVERY == 0:
            run.journal.report(run.step, loss=loss)
        if run.step % _JUDGE_EVERY == 0:
            run.judge(judged)
        if run.journal.due or run.step == recipe.steps:
            run.save()
    run.judge(judged)
    save(finished_state(run.averaged, pictures), finished)
    return finished


def _judged(config: Config, folder: Path, device: torch.device) -> Tensor:
    """Unseen pictures, some of each job."""
    path = folder / "pool" / "judged.pt"
    if not path.exists():
        save(make_shard(Split.EVALUATE, config.seed, 0, device=device).pictures[::8].contiguous(), path)
    kept: Tensor = torch.load(path, weights_only=True)
    return kept[:_JUDGED]


class VaeRun:
    def __init__(self, config: Config, folder: Path, *, device: torch.device, compiled: bool) -> None:
        self.config, self.device = config, device
        torch.manual_seed(config.seed)
        self.twin = channels_last(VaeTwin(config.vae).to(device))
        self.averaged = channels_last(VaeTwin(config.vae).to(device))
        self.averaged.load_state_dict(self.twin.state_dict())
        if compiled:
            forward = torch.compile(Norm.forward, dynamic=True)
            for module in self.twin.modules():
                if isinstance(module, Norm):
                    module.forward = forward.__get__(module)  # type: ignore[method-assign]
        recipe = config.vae_recipe
        named = list(self.twin.named_parameters())
        matrices = [parameter for name, parameter in named if _is_matrix(name, parameter)]
        others = [parameter for name, parameter in named if not _is_matrix(name, parameter)]
        self.optimiser = Optimiser(matrices, others, matrix_rate=recipe.matrix_rate, other_rate=recipe.other_rate)
        self.journal = Journal(folder / "vae", recipe.steps)
        self.step = 0
        if state := self.journal.resume():
            self.step = state["step"]
            self.twin.load_state_dict(state["weights"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.restore(state["optimiser"])

    def advance(self, pictures: Tensor) -> float:
        """One step; returns its loss. A step's randomness comes from the seed and its number alone."""
        recipe = self.config.vae_recipe
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        batch = _batch(pictures, recipe, self.step, draw).to(self.device, memory_format=torch.channels_last)
        real = batch.float() / 127.5 - 1
        with torch.autocast(self.device.type, torch.bfloat16):
            latents = self.twin.encode(real)
            noise = torch.randn(latents.shape, generator=draw).to(self.device)
            made = self.twin.decode(latents + recipe.latent_noise * noise)
        off = made.float() - real
        loss = off.abs().mean() + 2 * off.square().mean() + recipe.latent_penalty * latents.float().square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(rate(self.step, recipe.steps, recipe.decay_from))
        self.step += 1
        average(self.averaged, self.twin, min(recipe.average, self.step / (self.step + 10)))
        return float(loss.detach())

    def judge(self, judged: Tensor) -> None:
        """Reports the averaged weights' mean PSNR on unseen pictures, and shows some of them."""
        made = rebuilt(self.averaged, judged, self.device)
        self.journal.report(self.step, psnr_db=psnr_db(made, judged))
        rows = [(f"truth {n}, rebuilt below", list(judged[n : n + 8])) for n in range(0, len(judged) - 7, 16)]
        rows_made = [("", list(made[n : n + 8])) for n in range(0, len(judged) - 7, 16)]
        sheet([row for both in zip(rows, rows_made, strict=True) for row in both], self.journal.folder / "sheet.png")
        self.journal.draw_curve(("loss", "psnr_db"))

    def save(self) -> None:
        self.journal.save(
            {
                "step": self.step,
                "weights": self.twin.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self.optimiser.state(),
            }
        )


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Muon suits inner convolutions; the picture's own channels and norms are Adam's."""
    return parameter.dim() == 4 and not name.startswith(("encoder.conv_in", "decoder.conv_out"))


def _batch(pictures: Tensor, recipe: VaeRecipe, step: int, draw: torch.Generator) -> Tensor:
    whole = step >= recipe.whole_from * recipe.steps
    chosen = torch.randint(len(pictures), (recipe.wholes if whole else recipe.crops,), generator=draw)
    if whole:
        return pictures[chosen]
    room = pictures.shape[-1] - recipe.crop_px
    corners = torch.randint(room + 1, (len(chosen), 2), generator=draw).tolist()
    size = recipe.crop_px
    return torch.stack(
        [pictures[n, :, y : y + size, x : x + size] for n, (y, x) in zip(chosen.tolist(), corners, strict=True)]
    )


def rate(step: int, steps: int, decay_from: float) -> float:
    """1, falling from `decay_from` of the steps on to 0 at the end; rises over the first 20."""
    return min(1.0, (step + 1) / 20, (1 - step / steps) / (1 - decay_from))


@torch.no_grad()
def average(averaged: nn.Module, current: nn.Module, keep: float) -> None:
    """Moves the average towards the current weights."""
    pairs = zip(averaged.parameters(), current.parameters(), strict=True)
    for own, new in pairs:
        own.lerp_(new, 1 - keep)


@torch.no_grad()
def rebuilt(twin: VaeTwin, pictures: Tensor, device: torch.device) -> Tensor:
    """The pictures through the VAE and back, uint8."""
    parts = []
    for part in torch.split(pictures, 16):
        with torch.autocast(device.type, torch.bfloat16):
            made = twin.decode(twin.encode(part.to(device).float() / 127.5 - 1))
        parts.append((made.float().clamp(-1, 1) * 127.5 + 128).to(torch.uint8).cpu())
    return torch.cat(parts)


def psnr_db(made: Tensor, truth: Tensor) -> float:
    """Mean over pictures."""
    squares = (made.float() - truth.float()).square().flatten(1).mean(1).clamp(min=1e-2)
    return float((10 * (math.log10(255**2) - squares.log10())).mean())


@torch.no_grad()
def finished_state(twin: VaeTwin, pictures: Tensor) -> dict[str, object]:
    """The weights, and each latent channel's mean and standard deviation over pictures."""
    device = next(twin.parameters()).device
    latents = torch.cat(
        [twin.encode(part.to(device).float() / 127.5 - 1).cpu() for part in torch.split(pictures[::4], 16)]
    )
    return {
        "weights": twin.state_dict(),
        "mean": latents.mean((0, 2, 3)).tolist(),
        "std": latents.std((0, 2, 3)).tolist(),
    }
