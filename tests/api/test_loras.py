"""LoRAs by HTTP: every model with its preset, files in every layout, by name and by address, three at once."""

import asyncio
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import MappingProxyType

import httpx
import numpy as np
import pytest
from PIL import Image

from darkroom.catalogue import read_catalogue
from darkroom.engine.engine import Engine
from darkroom.job import Job
from darkroom.lora.convert import AdapterFile, convert
from darkroom.lora.shelf import Shelf
from darkroom.settings import Settings
from hosts import FileHost, file_host
from loras import LAYOUTS, MODULES, make_pairs, save
from serving import PATIENCE_S, Node, run, serving

EMPTY: Mapping[str, Path] = MappingProxyType({})
CATALOGUE = read_catalogue()
PRESETS = sorted(set(CATALOGUE["qwen-image-edit-plus-multi-lora"].parameters["lora"].enum) - {"none"})
SLUGS = {card.preset: slug for slug, card in CATALOGUE.items() if card.preset}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """A file for each preset, each layout in turn, all different."""
    folder = tmp_path_factory.mktemp("files")
    layouts = list(LAYOUTS.values())
    return {
        name: save(
            folder / f"{name}.safetensors",
            layouts[index % len(layouts)].write(make_pairs(ranks=(2, 4), seed=100 + index)),
        )
        for index, name in enumerate(PRESETS)
    }


@pytest.fixture(scope="module")
def host() -> Iterator[FileHost]:
    with file_host() as running:
        yield running


@pytest.fixture(scope="module")
def node(tiny_checkpoint, tmp_path_factory, files, host) -> Iterator[Node]:
    """A service all of whose presets are installed, from the operator's own files."""
    folder = tmp_path_factory.mktemp("node")
    table = folder / "presets.toml"
    table.write_text("".join(f"[{name}]\nsource = {json.dumps(str(path))}\n" for name, path in files.items()))
    settings = Settings(
        data=folder,
        checkpoint=str(tiny_checkpoint),
        device="cpu",
        dtype="float32",
        lora_presets=table,
        fetch_allow=(host.address,),
        v1_wait_s=PATIENCE_S,
    )
    with serving(settings) as running:
        shelf = Shelf(running.service.loras)
        for name in files:
            asyncio.run(shelf.fetch(name, lambda *_: None))
        yield running


@pytest.fixture(scope="module")
def client(node) -> Iterator[httpx.Client]:
    with node.client(node.new_key("loras")) as client:
        yield client


@pytest.fixture(scope="module")
def engine(tiny_checkpoint) -> Engine:
    return Engine.load(tiny_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def make(engine, files, node, tmp_path_factory):
    """The picture of a job as the engine makes it by itself, from original files."""
    folder = tmp_path_factory.mktemp("canonical")
    installed = {digest_of(path.read_bytes()): path for path in files.values()}

    def of(job: Job, by_address: Mapping[str, Path] = EMPTY, *, bare: bool = False) -> np.ndarray:
        loras = []
        for ref in () if bare else job.edit.loras:
            path = by_address[ref.url] if ref.url else installed[ref.digest]
            canonical = folder / digest_of(path.read_bytes())
            if not canonical.exists():
                convert(path, canonical, MODULES)
            loras.append(AdapterFile(path=canonical, digest=canonical.name, strength=ref.strength))
        blobs = node.service.blobs
        pictures = [Image.open(BytesIO(blobs.get(ref.blob))).convert("RGB") for ref in job.edit.pictures]
        prepared = engine.prepare(job.edit, pictures)
        return np.asarray(engine.make(job.edit, prepared, lambda _: None, loras).image)

    return of


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def edited(client: httpx.Client, node: Node, photo: str, slug: str, **params) -> tuple[Job, np.ndarray]:
    """The job and its picture, in whose file the LoRAs are named."""
    asked = {"prompt": "x", "seed": 7, "num_inference_steps": 2, "image_format": "png", **params}
    submitted = run(client, asked | ({"image_1": photo}), slug=slug)
    result = client.get(submitted["response_url"])
    assert result.status_code == HTTPStatus.OK, result.text
    picture = Image.open(BytesIO(client.get(result.json()["output"]).content))
    job = node.service.ledger.job(submitted["request_id"])
    told = json.loads(picture.info.get("loras", "[]"))
    assert [(each["name"], each["strength"]) for each in told] == [
        (lora.name, lora.strength) for lora in job.edit.loras
    ]
    assert all(len(each["sha256"]) == 64 for each in told)
    timings = result.json()["timings"]
    assert ({"resolve", "loras", "merge"} <= timings.keys()) == bool(job.edit.loras)
    assert timings["inference"] == pytest.approx(
        sum(timings.values()) - timings["inference"] - timings.get("resolve", 0), abs=0.01
    )
    return job, np.asarray(picture)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_models_preset_is_applied(client, node, photo, files, make, preset):
    """The picture is the engine's under that preset's file at its strength, and without it would be another."""
    job, picture = edited(client, node, photo, SLUGS[preset])
    (lora,) = job.edit.loras
    assert lora.digest == digest_of(files[preset].read_bytes())
    assert lora.strength == (0.75 if preset == "next_scene" else 1.0)
    assert np.array_equal(picture, make(job))
    assert not np.array_equal(picture, make(job, bare=True))
    assert job.result.timings_s.keys() >= {"loras", "merge"}


def test_three_at_once_by_name_and_by_address(client, node, photo, files, host, make, tmp_path):
    """Each at its own strength; another order of the same set gives the same pixels."""
    first, second = (
        save(tmp_path / name, LAYOUTS[layout].write(make_pairs(seed=seed)))
        for name, layout, seed in (("one", "kohya", 1), ("two", "diffusers", 2))
    )
    one, two = (host.put(f"{path.name}.safetensors", path.read_bytes()) for path in (first, second))
    slug = "qwen-image-edit-plus-multi-lora"
    named = {"lora": "relight", "lora_scale": -0.5}
    job, picture = edited(client, node, photo, slug, lora_2_url=one, lora_2_scale=1.5, lora_3_url=two, **named)
    assert [lora.strength for lora in job.edit.loras] == [-0.5, 1.5, 1.0]
    assert np.array_equal(picture, make(job, {one: first, two: second}))
    _, swapped = edited(client, node, photo, slug, lora_2_url=two, lora_3_url=one, lora_3_scale=1.5, **named)
    assert np.array_equal(picture, swapped)


def test_without_a_lora_the_model_is_as_it_was(client, node, photo, make):
    """Whatever was applied before: nothing of it is left."""
    job, picture = edited(client, node, photo, "qwen-image-edit-plus-multi-lora", lora="none")
    assert job.edit.loras == ()
    assert np.array_equal(picture, make(job))


def test_a_queued_job_has_the_file_of_when_it_was_accepted(client, node, photo, host, make, tmp_path):
    """Another file at the same address later is for later requests."""
    first, second = (save(tmp_path / f"{seed}", LAYOUTS["kohya"].write(make_pairs(seed=seed))) for seed in (11, 12))
    url = host.put("moving.safetensors", first.read_bytes())
    slug = "qwen-image-edit-plus-multi-lora"
    job, picture = edited(client, node, photo, slug, lora_2_url=url)
    host.put("moving.safetensors", second.read_bytes())
    later, other = edited(client, node, photo, slug, lora_2_url=url)
    assert job.edit.loras != later.edit.loras
    assert np.array_equal(picture, make(job, {url: first}))
    assert np.array_equal(other, make(later, {url: second}))


def test_a_file_that_fails_when_it_is_read_fails_its_job_alone(client, node, photo, host, tmp_path):
    """A value that is no number shows in the body only: the job says so, by its field, and the next one runs."""
    pairs = make_pairs(seed=13)
    next(iter(pairs.values()))[1][0, 0] = float("nan")
    file = save(tmp_path / "nan", LAYOUTS["diffusers"].write(pairs))
    url = host.put("nan.safetensors", file.read_bytes())
    params = {"prompt": "x", "image_1": photo, "lora_2_url": url, "num_inference_steps": 1}
    submitted = run(client, params, slug="qwen-image-edit-plus-multi-lora")
    result = client.get(submitted["response_url"])
    assert result.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "lora_2_url" in result.json()["error"]
    edited(client, node, photo, "qwen-image-edit-plus-multi-lora", lora="none")


def test_go_fast_takes_eight_unguided_steps_once_lightning_is_there(tiny_checkpoint, tmp_path, photo):
    """Before, eight guided steps of the model itself; after, the LoRA's own schedule, beside whatever else is asked."""
    lightning, style = (
        save(tmp_path / name, LAYOUTS["lightx2v"].write(make_pairs(seed=seed)))
        for name, seed in (("lightning", 21), ("style", 22))
    )
    table = tmp_path / "presets.toml"
    sources = {"lightning_8_steps": lightning, "relight": style}
    table.write_text("".join(f"[{name}]\nsource = {json.dumps(str(path))}\n" for name, path in sources.items()))
    settings = Settings(
        data=tmp_path, checkpoint=str(tiny_checkpoint), device="cpu", lora_presets=table, v1_wait_s=PATIENCE_S
    )
    with serving(settings) as node, node.client(node.new_key("fast")) as client:

        def made(slug: str, **params):
            picture = {"image" if slug == "qwen-image-edit-plus" else "image_1": photo}
            submitted = run(client, {"prompt": "x", "seed": 7, **picture, **params}, slug=slug)
            return node.service.ledger.job(submitted["request_id"]).edit

        before = made("qwen-image-edit-plus")
        assert (before.num_inference_steps, before.true_cfg_scale, before.loras) == (8, 4.0, ())
        for name in sources:
            asyncio.run(Shelf(node.service.loras).fetch(name, lambda *_: None))
        after = made("qwen-image-edit-plus")
        assert (after.num_inference_steps, after.true_cfg_scale, after.lightning) == (8, 1.0, True)
        assert [lora.name for lora in after.loras] == ["lightning_8_steps"]
        assert not made("qwen-image-edit-plus", go_fast=False, num_inference_steps=2).loras
        both = made("qwen-image-edit-plus-relight", go_fast=True)
        assert [lora.name for lora in both.loras] == ["relight", "lightning_8_steps"]
        assert both.lightning
        slow = made("qwen-image-edit-plus-relight", num_inference_steps=2)
        assert [lora.name for lora in slow.loras] == ["relight"]
        assert not slow.lightning


def test_a_checkpoint_brings_its_own(tiny_checkpoint, tmp_path, photo):
    """Its presets are served and listed with nothing installed, go_fast has its Lightning, and its guidance is the
    default; what a request says still goes."""
    checkpoint = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    own = {
        name: save(checkpoint / f"{name}.safetensors", LAYOUTS["diffusers"].write(make_pairs(seed=seed)))
        for name, seed in (("relight", 31), ("lightning_8_steps", 32))
    }
    declared = json.loads((checkpoint / "darkroom.json").read_text())
    declared |= {"guidance_scale": 1.5, "loras": {name: path.name for name, path in own.items()}}
    (checkpoint / "darkroom.json").write_text(json.dumps(declared))
    settings = Settings(data=tmp_path / "data", checkpoint=str(checkpoint), device="cpu", v1_wait_s=PATIENCE_S)
    with serving(settings) as node, node.client(node.new_key("own")) as client:
        listed = {one["name"]: one for one in client.get("/v2/loras").json()["loras"]}
        for name, path in own.items():
            assert listed[name]["installed"]
            assert listed[name]["digest"] == digest_of(path.read_bytes())
        relight = "qwen-image-edit-plus-relight"
        job, picture = edited(client, node, photo, relight)
        (lora,) = job.edit.loras
        assert (lora.digest, lora.strength) == (digest_of(own["relight"].read_bytes()), 1.0)
        assert job.edit.true_cfg_scale == 1.5
        _, without = edited(client, node, photo, relight, lora_scale=0.0)
        assert not np.array_equal(picture, without)
        job, _ = edited(client, node, photo, relight, guidance_scale=3, num_inference_steps=1)
        assert job.edit.true_cfg_scale == 3
        job, _ = edited(client, node, photo, relight, go_fast=True)
        assert [lora.name for lora in job.edit.loras] == ["relight", "lightning_8_steps"]
        assert (job.edit.lightning, job.edit.true_cfg_scale) == (True, 1.0)
