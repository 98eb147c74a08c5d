"""Makes the checkpoint, stage after stage, going on where it was left: `python -m training.run --out DIR`.

`python -m training.ship DIR` then puts it into the package.
"""

import argparse
from pathlib import Path

import torch

from training.config import Config, on_gpu
from training.evaluate import evaluate
from training.export import export
from training.fast_stage import train_fast
from training.joint_stage import train_joint
from training.refine import refine
from training.start import begin
from training.vae_stage import train_vae


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.run", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where state, logs, sheets and the checkpoint go")
    parser.add_argument("--start", type=Path, help="begin with what an earlier run has learnt (training.start)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    config = Config() if device.type == "cpu" else on_gpu(Config())
    if asked.start:
        begin(config, asked.start, asked.out)
    vae = train_vae(config, asked.out, device=device)
    joint = train_joint(config, asked.out, vae, device=device)
    train_fast(config, asked.out, vae, joint, device=device)
    checkpoint = asked.out / "checkpoint"
    if not checkpoint.exists():
        export(config, asked.out, checkpoint)
    refined = refine(config, checkpoint, asked.out, device=device)
    evaluate(refined, asked.out / "evaluation", seed=config.seed)


if __name__ == "__main__":
    main()
