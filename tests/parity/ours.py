"""An edit by the engine, stage by stage, with the values the oracle keeps."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image

from darkroom.edit import Edit
from darkroom.engine.engine import Engine, make_noise
from darkroom.engine.prepare import prepare
from darkroom.engine.schedule import make_schedule
from darkroom.engine.vae import TOKEN_PX
from parity.oracle import Kept


@torch.inference_mode()
def run_stages(engine: Engine, edit: Edit, pictures: Sequence[Image]) -> Kept:
    prepared = prepare(edit, pictures, engine._sizes, engine._vision)
    encoded = engine._encode(edit, prepared)
    rows, columns = prepared.height_px // TOKEN_PX, prepared.width_px // TOKEN_PX
    noise = make_noise(edit.seed, rows, columns, channels=engine._models.vae.channels)
    schedule = make_schedule(engine._schedule, steps=edit.num_inference_steps, image_tokens=rows * columns)
    predictions = []
    hook = engine._models.transformer.register_forward_hook(lambda _, __, output: predictions.extend(output.split(1)))
    latents = engine._denoise(edit, prepared, encoded, lambda _: None)
    hook.remove()
    picture = engine.edit(edit, pictures, lambda _: None).image
    return Kept(
        seen=prepared.seen.patches,
        prompt=encoded.prompt,
        negative=encoded.negative,
        references=encoded.references,
        noise=noise,
        sigmas=torch.tensor(schedule.sigmas),
        timesteps=torch.tensor(schedule.timesteps),
        predictions=predictions,
        latents=[latents],
        picture=np.asarray(picture) / 255,
    )
