"""Trains the 8-step LoRA: from where few large steps lead, straight to the picture.

A sampler's first step puts it on the line between noise and the model's first guess, so that is where the frozen model
with this adapter learns to see the truth, for the base's jobs and for every preset's.
"""

from pathlib import Path

import torch
from torch import Tensor

from training.config import Config
from training.joint_stage import draw_jobs, missed, new_editor, on, on_the_way, vocabulary
from training.journal import Journal
from training.latents import Coder, Pool, add_shard
from training.model import Editor, compile_blocks
from training.pool import save
from training.transformer_twin import Adapter
from training.vae_stage import rate
from training.world.jobs import adapters

FAST = "fast"
SIGMAS = (1.0, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3)
_REPORT_EVERY = 25


def train_fast(config: Config, folder: Path, vae: Path, joint: Path, *, device: torch.device) -> Path:
    """Trains to the end, or from where it was left. Returns the file with the adapter's weights."""
    finished = folder / FAST / "finished.pt"
    if finished.exists():
        return finished
    run = FastRun(config, folder, vae, joint, device=device)
    compile_blocks(run.editor)
    while run.step < config.fast_recipe.steps:
        loss = run.advance()
        if run.step % _REPORT_EVERY == 0:
            run.journal.report(run.step, loss=loss)
        if run.journal.due or run.step == config.fast_recipe.steps:
            run.save()
    run.journal.draw_curve(("loss",))
    save(run.adapter.state_dict(), finished)
    return finished


class FastRun:
    def __init__(self, config: Config, folder: Path, vae: Path, joint: Path, *, device: torch.device) -> None:
        self.config, self.device = config, device
        words = vocabulary(folder, config.seed)
        self.editor: Editor = new_editor(config, words, device)
        self.editor.load_state_dict(torch.load(joint, weights_only=True))
        self.editor.requires_grad_(requires_grad=False)
        torch.manual_seed(config.seed)
        self.adapter = Adapter(config.transformer, config.transformer.rank(FAST)).to(device)
        self.editor.adapters[FAST] = self.adapter
        self.pool, coder = Pool(words), Coder.load(config, vae, device)
        for number in range(config.joint_recipe.first_shards):
            add_shard(self.pool, config, folder, number, coder, device)
        recipe = config.fast_recipe
        self.optimiser = torch.optim.AdamW(self.adapter.parameters(), lr=recipe.rate, weight_decay=0.0)
        self.journal = Journal(folder / FAST, recipe.steps)
        self.step, self._loss = 0, 0.0
        if state := self.journal.resume():
            self.step = state["step"]
            self.adapter.load_state_dict(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])

    def advance(self) -> float:
        """One step; returns the running loss. A step's randomness comes from the seed and its number alone."""
        recipe, joint = self.config.fast_recipe, self.config.joint_recipe
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate * rate(self.step, recipe.steps, 0.0)
        shares = {job: share for job, share in joint.shares.items() if job != "unadapted"}
        for job in draw_jobs(shares, joint.parts, draw):
            loss = self._part(job, draw)
            (loss / joint.parts).backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            self._loss += 0.02 * (value - self._loss) if self._loss else value
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        return self._loss

    def _part(self, job: str, draw: torch.Generator) -> Tensor:
        batch = on(self.pool.draw(job, self.config.joint_recipe.batch, draw), self.device)
        noise = torch.randn(batch.target.shape, generator=draw).to(self.device)
        chosen = torch.randint(len(SIGMAS), (len(noise),), generator=draw)
        moments = torch.tensor(SIGMAS)[chosen].to(self.device)
        named = (*adapters(job), FAST)
        noisy = on_the_way(self.editor, batch, noise, moments, named)
        return missed(self.editor, batch, noisy, moments, named).square().mean()

    def save(self) -> None:
        self.journal.save(
            {"step": self.step, "weights": self.adapter.state_dict(), "optimiser": self.optimiser.state_dict()}
        )
