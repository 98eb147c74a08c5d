"""One preset's adapter goes on alone, on a finished checkpoint: `python -m training.refine --out DIR`.

What comes of it is that checkpoint with this one LoRA in place of its own; no other file changes. All of the adapter's
matrices are trained by Muon, with which it gained half as much again as with Adam in as many steps (docs/nano.md).
"""

import argparse
import shutil
from pathlib import Path
from typing import cast

import torch

from darkroom.checkpoint.locate import NANO
from training.config import Config, on_gpu
from training.export import replace_lora
from training.joint_stage import draw_jobs, loss_of, new_editor, on, shards_at, vocabulary
from training.journal import Journal
from training.judge import Judge
from training.latents import Coder, Pool, add_shard
from training.model import compile_blocks
from training.optimiser import Optimiser
from training.start import begin
from training.transformer_twin import Adapter
from training.vae_stage import average, rate

REFINE, REFINED = "refine", "refined"
_REPORT_EVERY = 50
_JUDGE_EVERY = 300


def refine(config: Config, checkpoint: Path, out: Path, *, device: torch.device, compiled: bool = True) -> Path:
    """Trains to the end, or from where it was left. Returns the checkpoint that came of it, in `out`, which may be the
    folder of the run that made `checkpoint`."""
    made = out / REFINED
    if made.exists():
        return made
    begin(config, checkpoint, out)
    recipe = config.refine_recipe
    run = RefineRun(config, out, device=device, compiled=compiled)
    while run.step < recipe.steps:
        loss = run.advance()
        if run.step % _REPORT_EVERY == 0:
            run.journal.report(run.step, loss=loss)
        if run.step % _JUDGE_EVERY == 0 or run.step == recipe.steps:
            run.journal.report(run.step, **run.judged())
            run.journal.draw_curve(("loss", f"{recipe.preset}_db", f"{recipe.preset}_right"))
        if run.journal.due or run.step == recipe.steps:
            run.save()
    partial = out / f"{REFINED}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial)
    replace_lora(partial, recipe.preset, run.averaged, config.transformer.layers)
    return partial.rename(made)


class RefineRun:
    def __init__(self, config: Config, folder: Path, *, device: torch.device, compiled: bool = True) -> None:
        self.config, self.folder, self.device = config, folder / REFINE, device
        recipe = config.refine_recipe
        words = vocabulary(folder, config.seed)
        self.coder = Coder.load(config, folder / "vae" / "finished.pt", device)
        self.editor, averaged = (new_editor(config, words, device) for _ in range(2))
        for editor in (self.editor, averaged):
            editor.load_state_dict(torch.load(folder / "joint" / "start.pt", weights_only=True))
            editor.requires_grad_(requires_grad=False)
        self._averaged_editor = averaged
        self.adapter, self.averaged = (
            cast("Adapter", editor.adapters[recipe.preset]) for editor in (self.editor, averaged)
        )
        self.adapter.requires_grad_()
        if compiled:
            compile_blocks(self.editor)
        self.optimiser = Optimiser(self.adapter.parameters(), (), matrix_rate=recipe.rate, other_rate=0.0)
        self.pool = Pool(words)
        self.judge = Judge(config, self.folder, self.coder, words, device, recipe.scenes)
        self.journal = Journal(self.folder, recipe.steps)
        self.step, self._loss = 0, 0.0
        if state := self.journal.resume():
            self.step = state["step"]
            self.adapter.load_state_dict(state["weights"])
            self.averaged.load_state_dict(state["averaged"])
            self.optimiser.restore(state["optimiser"])

    def advance(self) -> float:
        """One step; returns the running loss. A step's randomness comes from the seed and its number alone."""
        recipe, joint = self.config.refine_recipe, self.config.joint_recipe
        while self.pool.shards < shards_at(self.step, recipe):
            add_shard(self.pool, self.config, self.folder, self.pool.shards, self.coder, self.device, recipe.scenes)
        draw = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        flowing = self.step >= recipe.flow_from * recipe.steps
        for job in draw_jobs(recipe.shares, joint.parts, draw):
            batch = on(self.pool.draw(job, joint.batch, draw), self.device)
            loss = loss_of(self.editor, batch, job, draw, joint, flowing=flowing)
            (loss / joint.parts).backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            self._loss += 0.02 * (value - self._loss) if self._loss else value
        self.optimiser.step(rate(self.step, recipe.steps, recipe.decay_from))
        self.step += 1
        average(self.averaged, self.adapter, min(joint.average, self.step / (self.step + 10)))
        return self._loss

    def judged(self) -> dict[str, float]:
        return self.judge.figures(self._averaged_editor, self.folder)

    def save(self) -> None:
        self.journal.save(
            {
                "step": self.step,
                "weights": self.adapter.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimiser": self.optimiser.state(),
            }
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.refine", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where state, logs, sheets and the checkpoint go")
    parser.add_argument("--start", type=Path, default=NANO, help="the checkpoint (default: the shipped one)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    refine(Config() if device.type == "cpu" else on_gpu(Config()), asked.start, asked.out, device=device)


if __name__ == "__main__":
    main()
