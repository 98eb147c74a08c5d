"""Admission, on a real ledger and folder."""

import asyncio
import base64
import dataclasses
import errno
import io
import time
from collections import namedtuple
from itertools import count

import pytest
from PIL import Image

from darkroom import admission
from darkroom.admission import Admission, Asked
from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name, result_name, upload_name
from darkroom.catalogue import read_catalogue
from darkroom.edit import Edit, ImageFormat, LoraRef, Output, PictureRef
from darkroom.errors import (
    AdapterUnavailable,
    IdempotencyConflict,
    InsufficientCredits,
    InvalidField,
    LoraForbidden,
    LoraNotFound,
    LoraNotSafetensors,
    ModelForbidden,
    RateLimited,
    RequestError,
    StorageFull,
    UnknownField,
    UnknownModel,
)
from darkroom.job import MICRO, Result, State
from darkroom.ledger.sqlite import SqliteLedger
from darkroom.links import FILES, SECRET_BYTES, UPLOADS, Links
from darkroom.lora.shelf import Shelf
from darkroom.settings import Settings
from darkroom.stores import open_loras
from hosts import file_host, lora_file

PLUS = "qwen-image-edit-plus"
MULTI = f"{PLUS}-multi-lora"
URL = "https://pictures.example.org/a.jpg"


def picture(width=8, height=8, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, format=kind)
    return file.getvalue()


PNG = picture()
BASE64 = base64.b64encode(PNG).decode()
CATALOGUE = read_catalogue()


class Door:
    """An admission with all that is behind it."""

    def __init__(self, folder, *, loras=False, **settings):
        self.settings = Settings(data=folder, min_free_bytes=0, max_picture_bytes=10_000, max_picture_px=10_000)
        self.settings = self.settings.model_copy(update=settings)
        self.ledger = SqliteLedger(folder / "ledger.db", lease_s=30, retention_s=60)
        self.blobs = Folder(folder / "blobs")
        self.key = self.ledger.create_key(name="studio", digest="d", granted_micro=10 * MICRO)
        self.numbers = count(1)
        self.links = Links(b"s" * SECRET_BYTES)
        self.now = time.time()
        self.admission = Admission(
            catalogue=CATALOGUE,
            ledger=self.ledger,
            blobs=self.blobs,
            links=self.links,
            loras=open_loras(self.settings) if loras else None,
            settings=self.settings,
            clock=lambda: self.now,
        )

    def ask(self, slug=PLUS, *, key=None, text=False, name=None, bare=False, **params):
        first = "image" if slug == PLUS else "image_1"
        params = params if bare else {"prompt": "Make it snow", first: URL} | params
        return asyncio.run(
            self.admission.admit(
                Asked(
                    request_id=f"request{next(self.numbers):02}",
                    slug=slug,
                    params=params,
                    text=text,
                    key=key or self.key,
                    idempotency_name=name,
                )
            )
        )

    def edit(self, slug=PLUS, **params):
        return self.ask(slug, **params).job.edit

    @property
    def untouched(self):
        """Whether the ledger and the folder are as if nobody had asked."""
        return not sum(self.ledger.counts().values()) and not list(self.blobs.names())


@pytest.fixture
def door(tmp_path):
    door = Door(tmp_path)
    yield door
    door.ledger.close()


class TestSettling:
    def test_everything_is_decided(self, door):
        """The job in the ledger holds an edit with nothing left open."""
        accepted = door.ask(image_2=PNG)
        assert accepted.job.state is State.QUEUED
        assert accepted.job.price_micro == 40_000
        assert door.ledger.job("request01").edit == Edit(
            prompt="Make it snow",
            negative_prompt=" ",
            pictures=(
                PictureRef(field="image", url=URL),
                PictureRef(field="image_2", blob=input_name("request01", "image_2")),
            ),
            aspect_ratio=None,
            seed=760941192,
            num_inference_steps=8,
            true_cfg_scale=4.0,
            output=Output(format=ImageFormat.WEBP, quality=90),
        )

    def test_whose_edit_it_is_is_decided(self, tmp_path):
        """The checkpoint that is served now, also if another one is when the job's turn comes."""
        door = Door(tmp_path, checkpoint="Qwen/Qwen-Image-Edit-2509")
        assert door.edit().checkpoint == "Qwen/Qwen-Image-Edit-2509"
        door.ledger.close()

    @pytest.mark.parametrize(
        ("slug", "params", "steps"),
        [
            (PLUS, {}, 8),
            (PLUS, {"go_fast": True}, 8),
            (PLUS, {"go_fast": False}, 40),
            (PLUS, {"go_fast": True, "num_inference_steps": 3}, 3),
            (MULTI, {}, 40),
            (MULTI, {"num_inference_steps": 100}, 100),
        ],
    )
    def test_steps(self, door, slug, params, steps):
        """The steps asked for, else the card's: few with go_fast, forty without."""
        assert door.edit(slug, **params).num_inference_steps == steps

    def test_guidance(self, door):
        """Guidance is on unless a scale of 1 turns it off; an empty negative prompt is as none sent."""
        assert door.edit().guided
        assert door.edit(negative_prompt="").guided
        assert door.edit(negative_prompt="").negative_prompt == " "
        assert door.edit(negative_prompt="blurred").negative_prompt == "blurred"
        assert door.edit(guidance_scale=2).true_cfg_scale == 2.0
        assert not door.edit(guidance_scale=1).guided

    @pytest.mark.parametrize(
        ("slug", "value", "expected"),
        [(PLUS, "match_input_image", None), (PLUS, "16:9", (16, 9)), (MULTI, "21:9", (21, 9)), (MULTI, None, None)],
    )
    def test_aspect_ratio(self, door, slug, value, expected):
        """A ratio in numbers, or none for the first picture's."""
        assert door.edit(slug, aspect_ratio=value).aspect_ratio == expected

    def test_output(self, door):
        """Format, quality and base64 are the result's."""
        edit = door.edit(image_format="jpeg", quality=55, base64=True)
        assert edit.output == Output(format=ImageFormat.JPEG, quality=55, base64=True)

    def test_given_seed(self, door):
        """A seed that was sent is taken, zero too."""
        assert door.edit(seed=0).seed == 0
        assert door.edit(seed=999_999_999_999_999).seed == 999_999_999_999_999

    def test_drawn_seed(self, door, monkeypatch):
        """-1 draws one from the whole range of the card; so does none at all where the card has no default."""
        asked = []
        monkeypatch.setattr("secrets.randbelow", lambda below: asked.append(below) or below - 1)
        assert door.edit(seed=-1).seed == 999_999_999_999_999
        assert door.edit(MULTI).seed == 2**31 - 1
        assert door.edit(MULTI, seed=-1).seed == 2**31 - 1
        assert asked == [10**15, 2**31, 2**31]

    def test_drawn_seeds_differ(self, door):
        """Two requests for a random seed get two."""
        assert door.edit(seed=-1).seed != door.edit(seed=-1).seed

    def test_a_form(self, door):
        """A multipart request's text and files make the same edit as JSON does."""
        edit = door.edit(text=True, image=PNG, seed="7", go_fast="false", guidance_scale="3")
        assert (edit.seed, edit.num_inference_steps, edit.true_cfg_scale) == (7, 40, 3.0)


class TestPictures:
    @pytest.mark.parametrize(
        "sent",
        [
            PNG,
            BASE64,
            "data:image/png;base64," + BASE64,
            "DATA:image/jpeg;charset=utf-8;BASE64," + BASE64,
            "data:;base64," + BASE64,
            "data:application/octet-stream;base64," + BASE64,
            base64.encodebytes(PNG).decode(),
            f"  {BASE64}\r\n",
        ],
        ids=["file", "base64", "data-url", "shouted", "untyped", "octets", "lines", "spaces"],
    )
    def test_inline_pictures_are_kept_as_they_came(self, door, sent):
        """File, base64 and data URL: the very bytes are on disk before the job is accepted."""
        (ref,) = door.edit(image=sent).pictures
        assert ref.url is None
        assert door.blobs.get(ref.blob) == PNG

    def test_addresses_are_kept_for_the_worker(self, door):
        """Nothing is fetched at the door; white space around an address doesn't matter."""
        assert door.edit(image=f" {URL} ").pictures == (PictureRef(field="image", url=URL),)
        assert not list(door.blobs.names())

    def test_prompt_order(self, door):
        """Pictures are in the card's order, whatever the request's; a gap closes up."""
        edit = door.edit(bare=True, image_3=PNG, prompt="p", image=URL)
        assert [ref.field for ref in edit.pictures] == ["image", "image_3"]

    @pytest.mark.parametrize(
        ("sent", "complaint"),
        [
            ("photo.jpg", "is neither an http(s) address, a data URL nor base64: 'photo.jpg'"),
            ("photos/cat.jpg", "is neither"),
            ("héllo", "is neither"),
            ("x" * 10_001, "is neither"),
            (BASE64[:-2] + "!!", "is neither"),
            ("data:image/png," + "%89PNG", "a data URL must begin like data:image/png;base64,"),
            ("data:text/html;base64,PGh0bWw+", "a data URL must begin like"),
            ("data:image/png;base64", "the file is empty"),
            (b"", "the file is empty"),
            (base64.b64encode(b"<html>").decode(), "a web page (HTML)"),
            (PNG[:40], "damaged or cut short"),
            (bytes(10_001), "10,001 bytes, and 10,000 are allowed"),
            (picture(101, 100), "more than 10,000 pixels"),
            (picture(100, 2), "at most 16 times"),
            ("file:///etc/passwd", "http"),
            ("ftp://example.org/a.png", "http"),
            ("http://127.0.0.1/a.png", "not public"),
            ("http://[::1]:80/a.png", "not public"),
            ("http://user:secret@example.org/a.png", "user"),
            (5, "must be a picture"),
        ],
    )
    def test_what_can_be_known_is_refused_at_once(self, door, sent, complaint):
        """A picture that can't work is a 400 with its field; nothing is kept and nothing charged."""
        with pytest.raises(InvalidField) as caught:
            door.ask(image_2=sent)
        assert complaint in caught.value.message
        assert caught.value.field == "image_2"
        assert len(caught.value.message) < 250
        assert door.untouched

    def test_the_operators_allowances_hold_here_too(self, tmp_path):
        """An address that is let through by the settings is accepted."""
        door = Door(tmp_path, fetch_allow=("127.0.0.1:8080",))
        assert door.edit(image="http://127.0.0.1:8080/a.png").pictures[0].url
        door.ledger.close()


class TestAdapters:
    @pytest.mark.parametrize("slug", [slug for slug, card in CATALOGUE.items() if card.preset])
    def test_models_that_bring_one(self, door, slug):
        """A model whose adapter isn't there is unavailable, and says which one it lacks."""
        with pytest.raises(AdapterUnavailable, match=CATALOGUE[slug].preset) as caught:
            door.ask(slug)
        assert caught.value.field == "lora"
        assert door.untouched

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({"lora": "relight"}, "lora"),
            ({"lora": "none", "lora_2_url": "https://example.org/a.safetensors"}, "lora_2_url"),
            ({"lora_3_url": "owner/name"}, "lora_3_url"),
        ],
    )
    def test_adapters_by_name_and_by_address(self, door, params, field):
        """On multi-lora each way to ask for an adapter is refused under its own field."""
        with pytest.raises(AdapterUnavailable) as caught:
            door.ask(MULTI, **params)
        assert caught.value.field == field
        assert door.untouched

    @pytest.mark.parametrize("params", [{}, {"lora": "none"}, {"lora": "", "lora_2_url": "", "lora_3_url": None}])
    def test_multi_lora_without_any(self, door, params):
        """multi-lora with no adapter is an edit by the model as it is."""
        assert door.ask(MULTI, **params).job.state is State.QUEUED

    @pytest.mark.parametrize(
        ("params", "scale", "lora"),
        [
            ({"lora_scale": 0.5}, "lora_scale", "lora"),
            ({"lora": "none", "lora_scale": 0}, "lora_scale", "lora"),
            ({"lora_2_url": "", "lora_2_scale": 1}, "lora_2_scale", "lora_2_url"),
            ({"lora_3_scale": -1}, "lora_3_scale", "lora_3_url"),
        ],
    )
    def test_a_strength_of_none(self, door, params, scale, lora):
        """A strength without its LoRA is refused under its own name, and the answer says what it is the strength of."""
        with pytest.raises(InvalidField, match=f"{scale} is the strength of {lora}, .* give both or none") as caught:
            door.ask(MULTI, **params)
        assert caught.value.field == scale
        assert door.untouched

    def test_a_bad_request_is_told_first(self, door):
        """Who has to change the request anyway hears of that before hearing of the adapter."""
        with pytest.raises(InvalidField, match="image_1"):
            door.ask(f"{PLUS}-relight", image_1=PNG[:40])


@pytest.fixture
def host():
    with file_host() as server:
        yield server


@pytest.fixture
def fitted(tmp_path, host):
    """A door whose engine applies LoRAs."""
    door = Door(tmp_path, loras=True, fetch_allow=(host.address,))
    yield door
    door.ledger.close()


class TestLoras:
    def test_the_edit_holds_the_file(self, fitted, host):
        """What is asked for by address is in the ledger as the file that the address stood for."""
        data = lora_file()
        url = host.put("a.safetensors", data)
        edit = fitted.edit(MULTI, lora_2_url=f" {url} ")
        ref = LoraRef(
            field="lora_2_url", name="a.safetensors", strength=1.0, url=url, validator=edit.loras[0].validator
        )
        assert edit.loras == (ref,)
        job = fitted.ledger.job("request01")
        assert job.edit == edit
        assert job.resolve_s > 0

    def test_nothing_was_resolved_without_loras(self, fitted):
        """The job says so, and not that it took no time."""
        assert fitted.ask(MULTI).job.resolve_s is None

    def test_a_preset_and_two_addresses(self, fitted, host):
        """Each is in the edit under its own field, in the order of the parameters."""
        library = fitted.admission._loras
        urls = [host.put(f"{number}.safetensors", lora_file(seed=number)) for number in range(2)]
        digest = asyncio.run(Shelf(library).add("relight", urls[0], lambda *_: None, scale=0.5, trigger=None))
        edit = fitted.edit(MULTI, lora_3_url=urls[1], lora_2_url=urls[0], lora="relight", lora_3_scale=-2)
        assert [(ref.field, ref.name, ref.strength) for ref in edit.loras] == [
            ("lora", "relight", 0.5),
            ("lora_2_url", "0.safetensors", 1.0),
            ("lora_3_url", "1.safetensors", -2.0),
        ]
        assert fitted.edit(MULTI, lora="relight", lora_scale=0).loras[0].strength == 0
        assert [ref.digest for ref in edit.loras] == [digest, digest, None]

    def test_a_preset_that_is_not_installed(self, fitted):
        """Is unavailable, and the answer names the command that brings it."""
        with pytest.raises(AdapterUnavailable, match="darkroom loras fetch relight") as caught:
            fitted.ask(f"{PLUS}-relight")
        assert caught.value.field == "lora"
        assert fitted.untouched

    @pytest.mark.parametrize(
        ("sent", "kind"),
        [("nonsense", InvalidField), ("o/n/a.ckpt", LoraNotSafetensors), ("http://127.0.0.1:1/a", LoraForbidden)],
    )
    def test_what_can_be_known_at_once(self, fitted, host, sent, kind):
        """An address that can't be used is refused without the network, under its field."""
        with pytest.raises(kind) as caught:
            fitted.ask(MULTI, lora_3_url=sent)
        assert caught.value.field == "lora_3_url"
        assert fitted.untouched
        assert not host.asked

    def test_what_its_host_says(self, fitted, host):
        """A file that will not do is refused as well: nothing is kept, and nothing charged."""
        with pytest.raises(LoraNotFound) as caught:
            fitted.ask(MULTI, image_1=PNG, lora_2_url=f"{host.base}/none.safetensors")
        assert caught.value.field == "lora_2_url"
        assert fitted.untouched

    def test_a_replay_asks_nobody(self, fitted, host):
        """A request that was accepted once is answered, whatever has become of its LoRA's host."""
        url = host.put("a.safetensors", lora_file())
        first = fitted.ask(MULTI, name="mine", lora_2_url=url)
        host.files.clear()
        assert fitted.ask(MULTI, name="mine", lora_2_url=url).job.id == first.job.id


class TestRefusals:
    def test_unknown_model(self, door):
        """A slug that nobody has is not found, with the nearest that is."""
        with pytest.raises(UnknownModel, match=r"not found; the nearest is qwen-image-edit-plus\Z"):
            door.ask("qwen-image-edit-pluss")

    def test_forbidden_model(self, door):
        """A key for other models is told which; that comes before anything about the body."""
        key = dataclasses.replace(door.key, models=(MULTI,))
        with pytest.raises(ModelForbidden, match=MULTI):
            door.ask(key=key, nonsense=1)
        assert door.ask(MULTI, key=key).job.slug == MULTI

    def test_unknown_field(self, door):
        """The card's own refusals come through."""
        with pytest.raises(UnknownField):
            door.ask(nonsense=1)

    def test_little_disk(self, door, monkeypatch):
        """With too little room left for the pictures and the reserve, nothing is accepted."""
        usage = namedtuple("usage", "total used free")  # noqa: PYI024  what shutil gives
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0, 0, len(PNG) - 1))
        with pytest.raises(StorageFull):
            door.ask(image=PNG)
        assert door.untouched
        assert door.ask().job.state is State.QUEUED

    def test_reserve(self, tmp_path):
        """The reserve is the setting's."""
        door = Door(tmp_path, min_free_bytes=2**62)
        with pytest.raises(StorageFull, match="nearly full"):
            door.ask()
        door.ledger.close()

    def test_disk_full_between_two_pictures(self, door, monkeypatch):
        """A disk that fills up under the pictures is said as such, and the first of them is gone again."""
        put = door.blobs.put

        def once(name, data):
            if name.endswith("image_2"):
                raise OSError(errno.ENOSPC, "No space left on device")
            put(name, data)

        monkeypatch.setattr(door.blobs, "put", once)
        with pytest.raises(StorageFull, match="full"):
            door.ask(image=PNG, image_2=PNG)
        assert door.untouched

    def test_no_files_stay_behind_a_refusal(self, door):
        """Whatever the ledger refuses, no picture stays."""
        poor = door.ledger.create_key(name="poor", digest="p", granted_micro=0)
        slow = door.ledger.create_key(name="slow", digest="s", granted_micro=MICRO, rate_per_minute=1)
        with pytest.raises(InsufficientCredits):
            door.ask(image=PNG, key=poor)
        assert door.untouched
        door.ask(key=slow)
        with pytest.raises(RateLimited):
            door.ask(image=PNG, key=slow)
        assert not list(door.blobs.names())

    def test_who_can_t_pay_has_no_work_done(self, door, monkeypatch):
        """Neither pictures nor LoRAs are looked at for a key without credits, or over its rate."""

        async def worked(*_, **__):
            raise AssertionError

        poor = door.ledger.create_key(name="poor", digest="p", granted_micro=0)
        hasty = door.ledger.create_key(name="hasty", digest="h", granted_micro=10 * MICRO, rate_per_minute=1)
        door.ask(key=hasty)
        monkeypatch.setattr(admission, "read_inline", worked)
        for key, error in ((poor, InsufficientCredits), (hasty, RateLimited)):
            with pytest.raises(error):
                door.ask(key=key, image=PNG)

    def test_files_swept_before_the_job_stood_are_put_again(self, door, monkeypatch):
        """A submit may stand still for as long as it takes a sweeper to think that nobody wants them."""
        accept = door.ledger.accept

        def late(submission):
            for name, _ in [*door.blobs.names()]:
                door.blobs.delete(name)
            return accept(submission)

        monkeypatch.setattr(door.ledger, "accept", late)
        (ref,) = door.edit(image=PNG).pictures
        assert door.blobs.get(ref.blob) == PNG

    def test_files_stay_when_nobody_knows(self, door, monkeypatch):
        """After an error that leaves open if the job was accepted, its pictures are not taken from it."""

        def broken(submission):
            raise ConnectionError("the answer was lost")

        monkeypatch.setattr(door.ledger, "accept", broken)
        with pytest.raises(ConnectionError):
            door.ask(image=PNG)
        assert [name for name, _ in door.blobs.names()] == [input_name("request01", "image")]


class TestIdempotency:
    def test_the_same_request_again(self, door):
        """The same request under the same name is the first job, its drawn seed included; no files are added."""
        first = door.ask(name="n", image=PNG, seed=-1)
        files = list(door.blobs.names())
        again = door.ask(name="n", image=PNG, seed=-1)
        assert again.replayed
        assert again.job == first.job
        assert list(door.blobs.names()) == files

    def test_spelt_otherwise(self, door):
        """Order, defaults written out, and numbers as text make no other request."""
        first = door.ask(name="n", image=PNG, seed=7)
        again = door.ask(
            name="n", bare=True, text=True, seed="7", image=PNG, quality="90", prompt="Make it snow", image_2=""
        )
        assert again.job.id == first.job.id

    @pytest.mark.parametrize(
        "other",
        [
            {"seed": 8},
            {"image": PNG + b" "},
            {"image": URL},
            {"prompt": "Make it rain"},
            {"image_2": PNG},
        ],
    )
    def test_another_request(self, door, other):
        """Another request under the same name is a conflict, and changes nothing."""
        door.ask(name="n", image=PNG, seed=7)
        files = list(door.blobs.names())
        with pytest.raises(IdempotencyConflict):
            door.ask(name="n", **({"image": PNG, "seed": 7} | other))
        assert list(door.blobs.names()) == files

    def test_another_model(self, door):
        """The model is part of the request."""
        door.ask(MULTI, name="n")
        with pytest.raises(RequestError):
            door.ask(name="n")

    def test_without_a_name(self, door):
        """Two requests without a name are two jobs."""
        assert door.ask().job.id != door.ask().job.id


def test_an_upload_is_copied_into_the_job(door):
    """Its link is answered from what is kept here, whatever host it names, and the job outlives the upload."""
    expires_at = int(door.now) + 60
    name = upload_name("k", "a.png", expires_at=expires_at)
    door.blobs.put(name, PNG)
    link = "http://127.0.0.1:8000" + door.links.path(UPLOADS, "k", "a.png", expires_at=expires_at)
    (ref,) = door.edit(image=link).pictures
    door.blobs.delete(name)
    assert ref == PictureRef(field="image", blob=input_name("request01", "image"))
    assert door.blobs.get(ref.blob) == PNG


def test_a_result_is_a_picture_for_the_next_edit(door):
    """The link of a result is known too, so that edits can be chained without fetching."""
    first = door.ask().job
    job, lease = door.ledger.claim("w")
    blob = result_name(job.id, fence=lease.fence, extension="png")
    door.blobs.put(blob, PNG)
    result = Result(blob=blob, content_type="image/png", size_bytes=1, width_px=8, height_px=8, timings_s={})
    ended = door.ledger.complete(lease, result)
    link = "https://x.example/p" + door.links.path(FILES, first.id, "a.png", expires_at=ended.expires_at)
    (ref,) = door.edit(image=link).pictures
    assert door.blobs.get(ref.blob) == PNG


@pytest.mark.parametrize("late", [True, False])
def test_a_link_whose_picture_is_gone_is_refused(door, late):
    """A link of ours past its time, or whose file has been deleted, is no address to be fetched."""
    expires_at = int(door.now) + 60
    if late:
        door.blobs.put(upload_name("k", "a.png", expires_at=expires_at), PNG)
        door.now += 60
    link = "http://127.0.0.1:8000" + door.links.path(UPLOADS, "k", "a.png", expires_at=expires_at)
    with pytest.raises(InvalidField, match="image: this link has expired"):
        door.ask(image=link)


def test_a_replay_is_answered_though_its_link_has_expired(door):
    """A request that was accepted is answered again under its name, whatever has become of its pictures' addresses."""
    expires_at = int(door.now) + 60
    door.blobs.put(upload_name(door.key.id, "a.png", expires_at=expires_at), PNG)
    link = "http://here" + door.links.path(UPLOADS, door.key.id, "a.png", expires_at=expires_at)
    first = door.ask(image=link, name="order 1")
    door.now = expires_at + 1
    again = door.ask(image=link, name="order 1")
    assert (again.job.id, again.replayed) == (first.job.id, True)


def test_a_forged_link_is_an_address_like_any_other(door):
    """Without our signature nothing kept is given out, and a private address stays shut."""
    link = Links(b"t" * SECRET_BYTES).path(UPLOADS, "k", "a.png", expires_at=door.now + 60)
    with pytest.raises(InvalidField, match="not public"):
        door.ask(image="http://127.0.0.1:8000" + link)
