"""Admission: from what a client asked for to a job in the ledger, with nothing left open.

What can be known at once is refused here: nothing is kept, nothing charged. Seed, defaults and inputs are fixed here,
so that a queued or retried job replays to the same picture. Inline pictures are kept as they came; their addresses are
left to the worker, so that no slow host holds up a submit. A LoRA's address is asked what it stands for, no more, and
only its own submit waits.
"""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from darkroom.blobs.folder import Folder
from darkroom.blobs.names import input_name, job_prefixes, upload_name
from darkroom.catalogue.card import NO_ADAPTER, Card
from darkroom.catalogue.parameter import Value, nearest, shorten
from darkroom.checkpoint.declaration import declared
from darkroom.checkpoint.locate import known_as
from darkroom.edit import Edit, ImageFormat, LoraRef, Output, PictureRef
from darkroom.errors import (
    AdapterUnavailable,
    InvalidField,
    ModelForbidden,
    RequestError,
    UnknownModel,
    UnknownRequest,
)
from darkroom.fetch.guard import check_address
from darkroom.inline import is_address, read_inline
from darkroom.ledger.contract import Accepted, Idempotency, Key, Ledger, Submission
from darkroom.links import UPLOADS, Links
from darkroom.lora.library import AskedLora, Library
from darkroom.picture import Limits
from darkroom.room import keep
from darkroom.settings import Settings

MATCH_INPUT: Final = "match_input_image"
RANDOM: Final = -1
"""The seed that asks for one to be drawn."""

LORAS: Final = {"lora": "lora_scale", "lora_2_url": "lora_2_scale", "lora_3_url": "lora_3_scale"}
"""The parameters that name a LoRA, each with the one that has its strength."""
FAST: Final = "go_fast"
BY_NAME: Final = "lora"
"""The one of them that names a preset; the others have addresses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A request as it came. request_id: new, never a client's own choice; the job is known by it.

    params: JSON values, and bytes for a multipart file. text: numbers and truth values may be text.
    idempotency_name: the client's own name for the request, if it gave it one.
    """

    request_id: str
    slug: str
    params: Mapping[str, object]
    text: bool
    key: Key
    idempotency_name: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    """The request's pictures: where each will be, in the prompt's order, and the bytes of those that are here."""

    refs: tuple[PictureRef, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """A request as its card takes it: its pictures and LoRAs are still to be looked at. params: as the card has checked
    them."""

    asked: Asked
    card: Card
    params: Mapping[str, Value | None]
    idempotency: Idempotency | None


class Admission:
    """To be used from any event loop, any number of requests at once.

    loras: None where the engine applies none; then whoever asks for one is refused. clock: seconds since the epoch, to
    tell links past their time.
    """

    def __init__(
        self,
        *,
        catalogue: Mapping[str, Card],
        ledger: Ledger,
        blobs: Folder,
        links: Links,
        loras: Library | None,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loras = loras
        self._catalogue = catalogue
        self._ledger = ledger
        self._blobs = blobs
        self._links = links
        self._clock = clock
        self._settings = settings
        self._limits = Limits.of(settings)
        self._checkpoint = known_as(settings.checkpoint)
        self._lightning = f"lightning_{settings.fast_steps}_steps"

    async def admit(self, asked: Asked) -> Accepted:
        """Accept the job; when this returns, all it needs is on disk, and it will end.

        Raises `RequestError`, and `LoraError` for a LoRA whose file is known not to do.
        """
        checked = await asyncio.to_thread(self._check, asked)
        if isinstance(checked, Accepted):
            return checked
        inputs = await self._inputs(checked)
        asked_loras = await asyncio.to_thread(self._asked_loras, checked)
        if not (self._loras and asked_loras):
            return await asyncio.to_thread(self._accept, checked, inputs, ())
        started = time.perf_counter()
        loras = await self._loras.resolve(asked_loras)
        return await asyncio.to_thread(self._accept, checked, inputs, loras, time.perf_counter() - started)

    def _check(self, asked: Asked) -> _Checked | Accepted:
        """Blocks for the ledger. Raises `RequestError`."""
        card = self._card(asked)
        params = card.check(asked.params, text=asked.text)
        named = _idempotency(asked.idempotency_name, card, params)
        # Before the pictures are looked at: what was accepted once is answered, though a link in it has expired since.
        if named and (earlier := self._ledger.replay(asked.key.id, named)):
            return earlier
        # Before any work is done for it: `accept` asks again, and takes.
        self._ledger.check(asked.key.id, card.price_micro)
        return _Checked(asked=asked, card=card, params=params, idempotency=named)

    def _asked_loras(self, checked: _Checked) -> tuple[AskedLora, ...]:
        """Blocks for the disk. Raises `RequestError`, `LoraError`."""
        card, params = checked.card, checked.params
        loras = _loras(params)
        for lora in loras:
            if self._loras is None:
                raise _without_adapters(lora, card)
            self._loras.check(lora)
        if _is_fast(card, params) and self._loras and self._loras.has(self._lightning):
            loras += (AskedLora(field=FAST, named=self._lightning, is_preset=True),)
        return loras

    def _accept(
        self, checked: _Checked, inputs: _Inputs, loras: tuple[LoraRef, ...], resolve_s: float | None = None
    ) -> Accepted:
        """Blocks for the disk. Raises `RequestError`."""
        job_id, card = checked.asked.request_id, checked.card
        submission = Submission(
            id=job_id,
            key_id=checked.asked.key.id,
            slug=card.slug,
            edit=settle(
                card,
                checked.params,
                inputs.refs,
                loras,
                fast_steps=self._settings.fast_steps,
                guidance_scale=declared(self._settings.checkpoint).guidance_scale,
                checkpoint=self._checkpoint,
            ),
            price_micro=card.price_micro,
            idempotency=checked.idempotency,
            resolve_s=resolve_s,
        )
        try:
            keep(inputs.files, blobs=self._blobs, settings=self._settings)
            accepted = self._ledger.accept(submission)
        except RequestError:
            self._forget(job_id)
            raise
        # After any other error nobody knows whether the job stands. Its files stay, then: the sweeper asks the ledger.
        if accepted.replayed:
            self._forget(job_id)
            return accepted
        for name, data in inputs.files.items():
            # Had this process stood still for long just now, they were taken for left-overs.
            if not self._blobs.has(name):
                self._blobs.put(name, data)
        return accepted

    def _card(self, asked: Asked) -> Card:
        card = self._catalogue.get(asked.slug)
        if card is None:
            raise UnknownModel(f"Model {shorten(asked.slug)} not found{nearest(asked.slug, self._catalogue)}")
        if asked.key.models is not None and asked.slug not in asked.key.models:
            raise ModelForbidden(f"This key may not use {asked.slug}, only {', '.join(asked.key.models) or 'no model'}")
        return card

    async def _inputs(self, checked: _Checked) -> _Inputs:
        """Raises `RequestError`."""
        refs: list[PictureRef] = []
        files: dict[str, bytes] = {}
        for field in checked.card.pictures:
            value = checked.params[field]
            if isinstance(value, str) and is_address(value := value.strip()):
                data = await asyncio.to_thread(self._own, value, field)
                if data is None:
                    check_address(value, field=field, allow=self._settings.fetch_allow)
                    refs.append(PictureRef(field=field, url=value))
                    continue
            elif isinstance(value, str | bytes):
                data = (await read_inline(value, field=field, limits=self._limits)).data
            else:
                continue
            name = input_name(checked.asked.request_id, field)
            files[name] = data
            refs.append(PictureRef(field=field, blob=name))
        return _Inputs(refs=tuple(refs), files=files)

    def _own(self, url: str, field: str) -> bytes | None:
        """The picture behind a link that this server has signed; None for any other address. Blocks for the disk.

        It is copied into the job's inputs, which outlive the link, and no network is asked. Raises `InvalidField`.
        """
        found = self._links.find(url)
        if found is None:
            return None
        kind, owner, file, expires_at = found
        gone = InvalidField(
            f"{field}: this link has expired, and the picture is gone; send the picture itself", field=field
        )
        if expires_at <= self._clock():
            raise gone
        try:
            if kind == UPLOADS:
                return self._blobs.get(upload_name(owner, file, expires_at=expires_at))
            result = self._ledger.job(owner).result
            return self._blobs.get(result.blob) if result else None
        except (FileNotFoundError, UnknownRequest):
            raise gone from None

    def _forget(self, job_id: str) -> None:
        for prefix in job_prefixes(job_id):
            self._blobs.delete(prefix)


def settle(
    card: Card,
    params: Mapping[str, Any],
    pictures: tuple[PictureRef, ...],
    loras: tuple[LoraRef, ...] = (),
    *,
    fast_steps: int = 8,
    guidance_scale: float | None = None,
    checkpoint: str | None = None,
) -> Edit:
    """The edit with every default decided. params: as the card has checked them. fast_steps: of the Lightning LoRA, if
    it is among them: it takes so many, without guidance. guidance_scale: the checkpoint's own default, if it has one.
    checkpoint: its name.
    """
    sampling = card.fast if card.fast is not None and _is_fast(card, params) else card.quality
    if guidance_scale is not None:
        sampling = replace(sampling, guidance_scale=guidance_scale)
    lightning = any(lora.field == FAST for lora in loras)
    if lightning:
        sampling = replace(sampling, num_inference_steps=fast_steps, guidance_scale=1.0)
    sampled = {name: default if params[name] is None else params[name] for name, default in asdict(sampling).items()}
    return Edit(
        prompt=params["prompt"],
        negative_prompt=sampled["negative_prompt"],
        pictures=pictures,
        aspect_ratio=_aspect_ratio(params["aspect_ratio"]),
        seed=_seed(card, params["seed"]),
        num_inference_steps=sampled["num_inference_steps"],
        true_cfg_scale=sampled["guidance_scale"],
        output=Output(format=ImageFormat(params["image_format"]), quality=params["quality"], base64=params["base64"]),
        loras=loras,
        lightning=lightning,
        checkpoint=checkpoint,
    )


def _is_fast(card: Card, params: Mapping[str, Any]) -> bool:
    return card.fast is not None and bool(params[FAST])


def _aspect_ratio(value: str) -> tuple[int, int] | None:
    if value == MATCH_INPUT:
        return None
    width, height = value.split(":")
    return int(width), int(height)


def _seed(card: Card, seed: int | None) -> int:
    if seed is not None and seed != RANDOM:
        return seed
    most = card.parameters["seed"].maximum
    assert isinstance(most, int)  # noqa: S101  a card's integers have integer bounds
    return secrets.randbelow(most + 1)


def _loras(params: Mapping[str, Any]) -> tuple[AskedLora, ...]:
    """Raises `InvalidField` for a strength of none."""
    asked = []
    for field, scale in LORAS.items():
        named, strength = params.get(field), params.get(scale)
        if named not in (None, NO_ADAPTER):
            asked.append(AskedLora(field=field, named=named, is_preset=field == BY_NAME, strength=strength))
        elif strength is not None:
            raise InvalidField(
                f"{scale} is the strength of {field}, which names no LoRA: give both or none", field=scale
            )
    return tuple(asked)


def _without_adapters(lora: AskedLora, card: Card) -> AdapterUnavailable:
    return AdapterUnavailable(
        f"{lora.field}: the adapter {shorten(lora.named)} is not installed on this server; "
        f"{card.slug if card.preset is None else 'qwen-image-edit-plus'} works without any",
        field=lora.field,
    )


def _idempotency(name: str | None, card: Card, params: Mapping[str, Value | None]) -> Idempotency | None:
    """The digest is over what is asked for, defaults included: how it was spelt or sent doesn't matter, but a picture's
    text or bytes do."""
    if name is None:
        return None
    told = {field: _hashed(value) if field in card.pictures else value for field, value in params.items()}
    return Idempotency(name=name, digest=hashlib.sha256(json.dumps([card.slug, told]).encode()).hexdigest())


def _hashed(value: Value | None) -> str | None:
    match value:
        case bytes():
            return f"file:{hashlib.sha256(value).hexdigest()}"
        case str():
            return f"text:{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"
        case _:
            return None
