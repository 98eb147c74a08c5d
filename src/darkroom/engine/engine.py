"""An edit from pictures and prompt to the finished picture: prepare, encode, denoise, decode.

One edit at a time. What is kept from one to the next are encodings by their content, bit for bit what would be computed
anew, so an edit gives the same picture whatever ran before.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL.Image import Image
from PIL.Image import new as new_picture
from torch import Tensor

from darkroom.checkpoint.declaration import WorkingSizes
from darkroom.checkpoint.layout import read_layout
from darkroom.edit import Edit, ImageFormat, Output, PictureRef, set_name
from darkroom.engine.adapter import Adapter, load_adapter
from darkroom.engine.beside import Beside
from darkroom.engine.decode import decode
from darkroom.engine.denoise import Conditions, denoise, make_passes
from darkroom.engine.device import Precision, choose_device, choose_dtype, measure_device
from darkroom.engine.fusion import CompileMode
from darkroom.engine.memo import Memo
from darkroom.engine.models import Models, load_models, make_overlay
from darkroom.engine.overlay import Overlay
from darkroom.engine.prepare import Prepared, Reference, VisionConfig, prepare
from darkroom.engine.rope import joint_rope
from darkroom.engine.schedule import ScheduleConfig, make_schedule
from darkroom.engine.vae import TOKEN_PX, pack
from darkroom.errors import OutOfMemory
from darkroom.job import Progress, Stage
from darkroom.lora.convert import AdapterFile, strengths_of
from darkroom.memory.needs import Needs
from darkroom.memory.plan import Tier, make_plan

WARM_SIZES = WorkingSizes(output_area_px=256**2, vae_area_px=256**2, condition_area_px=112**2)
WARM_EDIT = Edit(
    prompt="",
    negative_prompt="",
    pictures=(PictureRef(field="image_1", blob=""),),
    aspect_ratio=None,
    seed=0,
    num_inference_steps=1,
    true_cfg_scale=2.0,
    output=Output(format=ImageFormat.PNG, quality=100),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """timings_s: seconds by stage."""

    image: Image
    timings_s: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """prompt, negative: hidden states [1, T, hidden]. references: packed latents [1, tokens, channels]."""

    prompt: Tensor
    negative: Tensor | None
    references: Tensor


class Engine:
    def __init__(
        self,
        models: Models,
        *,
        overlay: Overlay | Beside,
        schedule: ScheduleConfig,
        vision: VisionConfig,
        sizes: WorkingSizes,
        memo_bytes: int,
    ) -> None:
        self._models = models
        self._overlay = overlay
        self._schedule = schedule
        self._vision = vision
        self._sizes = sizes
        self._memo = Memo(memo_bytes)
        self._device = models.transformer.img_in.weight.device

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        *,
        device: str = "auto",
        dtype: Precision = "auto",
        tier: Tier = "exact",
        compile: CompileMode = "auto",  # noqa: A002  the setting's name
        memo_bytes: int = 0,
        memory_gb: float | None = None,
    ) -> "Engine":
        """tier: whether matrices are multiplied in float8 where the device can. compile: whether small operations are
        fused by torch's compiler. memo_bytes: for what was encoded lately. memory_gb: of the device's, to be kept to.

        Raises `BadCheckpoint` that names what is wrong with it; `BadSetting` for a device or compiler that is not
        there, and where the checkpoint does not fit.
        """
        layout = read_layout(checkpoint)
        place = choose_device(device)
        chosen = choose_dtype(dtype, place)
        configs = {part.name: part.config for part in (layout.transformer, layout.text_encoder, layout.vae)}
        plan = make_plan(
            Needs.read(configs, layout.working_sizes),
            measure_device(place, memory_gb),
            dtype="bfloat16" if chosen == torch.bfloat16 else "float32",
            tier=tier,
            cache_bytes=memo_bytes,
        )
        models = load_models(layout, plan, device=place, dtype=chosen, mode=compile)
        return cls(
            models,
            overlay=make_overlay(models.transformer, plan),
            schedule=ScheduleConfig.read(layout.scheduler),
            vision=VisionConfig.read(layout.processor),
            sizes=layout.working_sizes,
            memo_bytes=memo_bytes,
        )

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def dtype(self) -> str:
        return str(self._models.transformer.dtype).removeprefix("torch.")

    def warm(self) -> None:
        """Make a small edit of one step, so that what is compiled or set up at a first call is there for a request."""
        prepared = prepare(WARM_EDIT, [new_picture("RGB", (256, 256))], WARM_SIZES, self._vision)
        self.make(WARM_EDIT, prepared, lambda _: None)

    def prepare(self, edit: Edit, pictures: Sequence[Image]) -> Prepared:
        """pictures: those of the edit, RGB and upright. Needs no device, and may run in a thread beside `make`.

        Raises `PictureInvalid` for a picture of an unusable shape, `EngineFailed`, `OutOfMemory`.
        """
        with _memory_errors():
            return prepare(edit, pictures, self._sizes, self._vision)

    @property
    def merged(self) -> frozenset[str]:
        """The names (`Edit.lora_set`) of the sets of LoRAs that `make` has to merge nothing for."""
        return frozenset(map(set_name, self._overlay.merged))

    def merge_ahead(self, edit: Edit, loras: Sequence[AdapterFile]) -> None:
        """Merge a set for its `make`, if there is room for it beside the one in use. May run in a thread beside another
        `make`, which it changes nothing for, and of which it takes one core.

        Raises `OutOfMemory`.
        """
        if isinstance(self._overlay, Overlay):
            with _memory_errors(), _one_core():
                strengths, load = strengths_of(loras), self._loader(loras)
                self._overlay.merge_ahead(strengths, load, steps=edit.num_inference_steps)

    @torch.inference_mode()
    def make(
        self,
        edit: Edit,
        prepared: Prepared,
        observe: Callable[[Progress], None],
        loras: Sequence[AdapterFile] = (),
    ) -> Made:
        """observe: told of each stage entered and each step done; what it raises ends the edit and leaves the engine as
        it was. loras: all applied, in whatever order they come. One call at a time.

        Raises `OutOfMemory`, `EngineFailed`.
        """
        watch = _Watch(edit.num_inference_steps, observe, self._device)
        with _memory_errors():
            with watch.stage(Stage.MERGE) if loras else nullcontext():
                self._overlay.use(strengths_of(loras), self._loader(loras), steps=edit.num_inference_steps)
            with watch.stage(Stage.ENCODE):
                encoded = self._encode(edit, prepared)
            with watch.stage(Stage.DENOISE):
                latents = self._denoise(edit, prepared, encoded, watch.stepped)
            with watch.stage(Stage.DECODE):
                image = decode(self._models.vae, latents, width_px=prepared.width_px, height_px=prepared.height_px)
        return Made(image=image, timings_s=watch.timings_s)

    def edit(self, edit: Edit, pictures: Sequence[Image], observe: Callable[[Progress], None]) -> Made:
        """`prepare`, then `make`."""
        watch = _Watch(edit.num_inference_steps, observe, self._device)
        with watch.stage(Stage.PREPARE):
            prepared = self.prepare(edit, pictures)
        made = self.make(edit, prepared, observe)
        return Made(image=made.image, timings_s={**watch.timings_s, **made.timings_s})

    def _loader(self, loras: Sequence[AdapterFile]) -> Callable[[str], Adapter]:
        paths = {lora.digest: lora.path for lora in loras}
        return lambda digest: load_adapter(paths[digest], self._device)

    def _encode(self, edit: Edit, prepared: Prepared) -> Encoded:
        text, vae, seen, memo = self._models.text, self._models.vae, prepared.seen, self._memo

        @cache
        def look() -> Tensor:
            return memo.get(seen.digest, lambda: text.look(seen))

        def hidden(prompt: str) -> Tensor:
            return memo.get((seen.digest, prompt), lambda: text.encode(prompt, look(), seen.grids))

        def latents(reference: Reference) -> Tensor:
            return memo.get(("vae", reference.digest), lambda: vae.encode(reference.pixels))

        negative = edit.negative_prompt if edit.guided else None
        return Encoded(
            prompt=hidden(edit.prompt),
            negative=None if negative is None else hidden(negative),
            references=torch.cat([latents(reference) for reference in prepared.references], dim=1),
        )

    def _denoise(self, edit: Edit, prepared: Prepared, encoded: Encoded, on_step: Callable[[int], None]) -> Tensor:
        transformer = self._models.transformer
        sides = [
            (prepared.height_px, prepared.width_px),
            *(tuple(each.pixels.shape[-2:]) for each in prepared.references),
        ]
        grids = [(height // TOKEN_PX, width // TOKEN_PX) for height, width in sides]

        prompts = [encoded.prompt, *([] if encoded.negative is None else [encoded.negative])]
        axes = transformer.config.axes_dims_rope
        conditions = Conditions(
            passes=make_passes(
                [transformer.embed_text(prompt) for prompt in prompts],
                [joint_rope(prompt.shape[1], grids, axes, self._device) for prompt in prompts],
                result_tokens=math.prod(grids[0]),
            ),
            references=transformer.embed_image(encoded.references),
            true_cfg_scale=edit.true_cfg_scale,
        )
        noise = make_noise(edit.seed, *grids[0], channels=self._models.vae.channels).to(self._device)
        config = self._schedule.for_lightning() if edit.lightning else self._schedule
        schedule = make_schedule(config, steps=edit.num_inference_steps, image_tokens=noise.shape[1])
        return denoise(transformer, noise, conditions, schedule, on_step)


def make_noise(seed: int, rows: int, columns: int, *, channels: int) -> Tensor:
    """[1, rows · columns, 4 · channels], float32: drawn on the CPU, so that a seed means the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return pack(torch.randn((1, channels, 2 * rows, 2 * columns), generator=generator))


class _Watch:
    """Tells of an edit's progress and takes its times."""

    def __init__(self, steps: int, observe: Callable[[Progress], None], device: torch.device) -> None:
        self.timings_s: dict[str, float] = {}
        self._steps = steps
        self._done = 0
        self._observe = observe
        self._device = device

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        started = time.perf_counter()
        self._tell(stage)
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.timings_s[stage.value] = time.perf_counter() - started

    def stepped(self, done: int) -> None:
        self._done = done
        self._tell(Stage.DENOISE)

    def _tell(self, stage: Stage) -> None:
        self._observe(Progress(stage=stage, step=self._done, steps=self._steps))


@contextmanager
def _one_core() -> Iterator[None]:
    """For what this thread computes on a CPU; others have theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _memory_errors() -> Iterator[None]:
    """On a GPU torch raises an error of its own; on a CPU a RuntimeError, and only the text tells."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory("there is not enough memory for this edit; use fewer pictures, or a larger device") from error
    except RuntimeError as error:
        if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory("there is not enough memory for this edit; use fewer pictures, or a larger device") from error
