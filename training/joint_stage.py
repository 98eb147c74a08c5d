"""Trains text encoder, transformer and the presets' adapters together, on latents.

First at t = 1 alone: from noise, in one step, the picture the prompt asks for. That grounds the prompt within minutes.
At the end other times are learnt too, where many steps lead: between noise and the model's own first guess. With the
truth in the guess's place, as flow matching has it, a sampler would come by latents unlike any that were learnt from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from training.config import Config, JointRecipe, RefineRecipe
from training.journal import Journal
from training.judge import Judge
from training.latents import Batch, Coder, Pool, add_shard
from training.model import Editor, by_optimiser, compile_blocks
from training.optimiser import Optimiser
from training.pool import save
from training.vae_stage import average, rate
from training.vocabulary import Vocabulary, make_vocabulary
from training.world.jobs import adapters

_REPORT_EVERY = 50
_JUDGE_EVERY = 500


def train_joint(config: Config, folder: Path, vae: Path, *, device: torch.device, compiled: bool = True) -> Path:
    """Trains to the end, or from where it was left. Returns the file with the averaged weights."""
    finished = folder / "joint" / "finished.pt"
    if finished.exists():
        return finished
    recipe = config.joint_recipe
    run = JointRun(config, folder, vae, device=device, compiled=compiled)
    while run.step < recipe.steps:
        losses = run.advance()
        if run.step % _REPORT_EVERY == 0:
            run.journal.report(run.step, **losses)
        if run.step % _JUDGE_EVERY == 0 or run.step == recipe.steps:
            run.journal.report(run.step, **run.judge.figures(run.averaged, run.journal.folder))
            run.journal.draw_curve(
                ("loss", "plus_db", "multiple_angle_db", "texture_apply_db", "product_photography_db")
            )
        if run.journal.due or run.step == recipe.steps:
            run.save()
    save(run.averaged.state_dict(), finished)
    return finished


class JointRun:
    def __init__(self, config: Config, folder: Path, vae: Path, *, device: torch.device, compiled: bool) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.vocabulary = vocabulary(folder, config.seed)
        self.coder = Coder.load(config, vae, device)
        self.pool = Pool(self.vocabulary)
        torch.manual_seed(config.seed)
        self.editor, self.averaged = (new_editor(config, self.vocabulary, device) for _ in range(2))
        if (start := folder / "joint" / "start.pt").exists():
            self.editor.load_state_dict(torch.load(start, weights_only=True))
        self.averaged.load_state_dict(self.editor.state_dict())
        if compiled:
            compile_blocks(self.editor)
        recipe = config.joint_recipe
        self.optimiser = Optimiser(
            *by_optimiser(self.editor), matrix_rate=recipe.matrix_rate, other_rate=recipe.other_rate
        )
        self.journal = Journal(folder / "joint", recipe.steps)
        self.judge = Judge(config, folder, self.coder, self.vocabulary, device)
        self.losses: dict[str, float] = {}
        self.step = 0
        if state := self.journal.resume():
            self.step = state["step"]
            self.editor.load_state_dict(state["weights"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.restore(state["optimiser"])

    def advance(self) -> dict[str, float]:
        """One step; returns running losses by job. A step's randomness comes from the seed and its number alone."""
        recipe = self.config.joint_recipe
        while self.pool.shards < shards_at(self.step, recipe):
            add_shard(self.pool, self.config, self.folder, self.pool.shards, self.coder, self.device)
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        flowing = self.step >= recipe.flow_from * recipe.steps
        for job in draw_jobs(recipe.shares, recipe.parts, draw):
            batch = self.pool.draw(job, recipe.batch, draw, unprompted=recipe.unprompted if flowing else 0.0)
            loss = loss_of(self.editor, on(batch, self.device), job, draw, recipe, flowing=flowing)
            (loss / recipe.parts).backward()  # type: ignore[no-untyped-call]
            self._note(job, float(loss.detach()))
        self.optimiser.step(rate(self.step, recipe.steps, recipe.decay_from))
        self.step += 1
        average(self.averaged, self.editor, min(recipe.average, self.step / (self.step + 10)))
        return {**self.losses, "loss": sum(self.losses.values()) / len(self.losses)}

    def _note(self, job: str, loss: float) -> None:
        group = "plus" if job.startswith("plus.") else job
        before = self.losses.get(group, loss)
        self.losses[group] = before + 0.05 * (loss - before)

    def save(self) -> None:
        self.journal.save(
            {
                "step": self.step,
                "weights": self.editor.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self.optimiser.state(),
            }
        )


def draw_jobs(shares: Mapping[str, float], count: int, draw: torch.Generator) -> list[str]:
    """So many by their shares; one may come several times."""
    jobs, weights = list(shares), torch.tensor(list(shares.values()))
    return [jobs[n] for n in torch.multinomial(weights, count, replacement=True, generator=draw).tolist()]


def loss_of(
    editor: Editor, batch: Batch, job: str, draw: torch.Generator, recipe: JointRecipe, *, flowing: bool
) -> Tensor:
    """flowing: half of the samples are at other times than t = 1."""
    noise = torch.randn(batch.target.shape, generator=draw)
    moments = torch.ones(len(noise))
    if flowing:
        half = len(noise) // 2
        moments[half:] = shifted(torch.rand(len(noise) - half, generator=draw))
    noise, moments = noise.to(batch.target.device), moments.to(batch.target.device)
    noisy = on_the_way(editor, batch, noise, moments, adapters(job)) if flowing else noise
    off = missed(editor, batch, noisy, moments, adapters(job)).square().mean(-1)
    weight = 1 + (recipe.changed_weight - 1) * batch.changed.float()
    loss: Tensor = (off * weight).sum() / weight.sum()
    return loss


def on_the_way(editor: Editor, batch: Batch, noise: Tensor, moments: Tensor, adapters: Sequence[str]) -> Tensor:
    """Where a sampler comes by at `moments`, [B]: between noise, [B, tokens, channels], and the model's first guess."""
    along = moments[:, None, None]
    with torch.no_grad():
        guess = noise - editor(batch, noise, torch.ones_like(moments), adapters)
    reached: Tensor = along * noise + (1 - along) * guess
    return reached


def missed(editor: Editor, batch: Batch, noisy: Tensor, moments: Tensor, adapters: Sequence[str]) -> Tensor:
    """By how much the step from there to the picture misses the truth: [B, tokens, channels]."""
    off: Tensor = noisy - moments[:, None, None] * editor(batch, noisy, moments, adapters) - batch.target
    return off


def vocabulary(folder: Path, seed: int) -> Vocabulary:
    """The run's tokenizer, made if the folder has none."""
    if not (folder / "tokenizer").exists():
        make_vocabulary(folder / "tokenizer", seed)
    return Vocabulary(folder / "tokenizer")


def new_editor(config: Config, words: Vocabulary, device: torch.device) -> Editor:
    """With weights to be trained, in bfloat16 products."""
    editor = Editor(config, tokens=words.rows, image_token=words.image_token, dtype=torch.bfloat16)
    return editor.to(device)


def shards_at(step: int, recipe: JointRecipe | RefineRecipe) -> int:
    """How many shards are drawn from at a step."""
    grown = (recipe.shards - recipe.first_shards) * step / recipe.steps
    return recipe.first_shards + int(grown)


def shifted(uniform: Tensor) -> Tensor:
    """Times as an edit's own schedule spreads them: later ones, with more noise, are more frequent."""
    weight = torch.e**0.5
    times: Tensor = weight * uniform / (1 + (weight - 1) * uniform)
    return times


def on(batch: Batch, device: torch.device) -> Batch:
    tensors = ("opening", "rest", "padded", "pictures", "target", "changed")
    return replace(batch, **{name: getattr(batch, name).to(device) for name in tensors})
