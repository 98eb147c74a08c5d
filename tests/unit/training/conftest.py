import random
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from training.config import Config, JointRecipe, RefineRecipe, TextSizes, TransformerSizes, VaeRecipe, VaeSizes
from training.pool import save
from training.vae_stage import finished_state
from training.vae_twin import VaeTwin
from training.world.draft import Sample
from training.world.jobs import JOBS, Split, draft


@pytest.fixture(scope="session")
def small() -> Config:
    """Everything as in the real config, but small enough to train a step in a blink."""
    shares = {"plus.recolour": 1.0, "texture_apply": 1.0, "pair": 1.0, "unadapted": 1.0}
    return Config(
        vae=VaeSizes(base_dim=4, dim_mult=(1, 1, 1, 1)),
        vae_recipe=VaeRecipe(steps=4, shards=1, crops=2, wholes=1),
        text=TextSizes(layers=2, hidden=32, heads=2, intermediate=48, mrope_section=(2, 3, 3)),
        transformer=TransformerSizes(layers=2, heads=2, head_dim=16, axes=(4, 6, 6), adapter_rank=2, adapter_ranks={}),
        joint_recipe=JointRecipe(
            steps=4, batch=2, parts=2, first_shards=1, shards=1, flow_from=0.5, unprompted=0.5, shares=shares
        ),
        refine_recipe=RefineRecipe(
            preset="texture_apply",
            steps=4,
            first_shards=1,
            shards=1,
            flow_from=0.5,
            scenes={"texture_apply": 1},
            shares={"texture_apply": 1.0},
        ),
    )


@pytest.fixture
def run_folder(small: Config, tmp_path: Path) -> Path:
    """A run's folder with a trained VAE and a pool: real prompts, pictures of noise."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (8, 3, 128, 128), generator=draw, dtype=torch.uint8)
    rng = random.Random(0)
    samples = [
        Sample(
            job=job,
            pictures=tuple(rng.randrange(8) for _ in sample.pictures),
            prompt=sample.prompt,
            target=rng.randrange(8),
        )
        for job in JOBS
        for sample in draft(job, Split.TRAIN, small.seed, 0).samples[:2]
    ]
    kept = {"pictures": pictures, "samples": [asdict(sample) for sample in samples]}
    for name in ("pictures-0000.pt", "judged-samples.pt"):
        save(kept, tmp_path / "pool" / name)
    save(pictures, tmp_path / "pool" / "judged.pt")
    torch.manual_seed(0)
    save(finished_state(VaeTwin(small.vae), pictures), tmp_path / "vae" / "finished.pt")
    return tmp_path
