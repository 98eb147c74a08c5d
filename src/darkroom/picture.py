"""Pictures as files: what clients send is read into upright sRGB, and what the engine makes is written.

A picture comes from a stranger. Its size is known from its header before a pixel is decoded, only the formats named
here are ever tried, and whatever its bytes do to a decoder ends as an error of this picture alone.
"""

import io
import json
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError

from darkroom.edit import ImageFormat, Output
from darkroom.errors import PictureInvalid, PictureTooLarge
from darkroom.magic import AVIF_BRANDS, HEIC_BRANDS
from darkroom.settings import Settings

MAX_ASPECT: Final = 16
"""How many times longer than wide a picture may be. Beyond it, its side in the model's area rounds to nothing."""
CHROMA_QUALITY: Final = 90
"""From this JPEG quality on, colour is kept at full resolution."""
WEBP_METHOD: Final = 4
PNG_LEVEL: Final = 1
"""Both by measurement: a higher one takes up to several times as long for at most a tenth fewer bytes."""

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
_ANIMATED: Final = frozenset(("PNG", "WEBP", "AVIF", "TIFF", "GIF"))
_GREY: Final = frozenset(("1", "L", "LA"))
_DEEP_GREY: Final = frozenset(("I;16", "I;16B", "I;16L", "I;16N"))
_COLOUR: Final = frozenset(("P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"))
_PROFILED: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGE: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)

_KNOWN: Final = (b"\xff\xd8\xff", b"\x89png", b"gif8", b"bm", b"ii*\0", b"mm\0*", b"ii+\0", b"mm\0+")
_SEEN: Final = {
    b"<!doctype html": "a web page (HTML)",
    b"<html": "a web page (HTML)",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML",
    b"{": "JSON",
    b"[": "JSON",
    b"%pdf": "a PDF",
    b"pk\x03\x04": "a ZIP archive",
    b"8bps": "a Photoshop file",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cjxl ": "a JPEG XL picture",
    b"\x1ae\xdf\xa3": "a video",
}

_SCANS: Final = 64
"""How often a JPEG may go over its pixels. A progressive one does some ten times; each time costs as much as a whole
picture, and takes a few bytes to ask for."""
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff])")
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers that nothing belongs to."""

# One picture is read at a time, which bounds the memory that decoding takes. Python's filters for warnings, which
# Pillow's are silenced by, belong to the whole process anyway.
_reading = threading.Lock()

Image.MAX_IMAGE_PIXELS = None  # `_load` has its own limit, which is the caller's and not the process's


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """max_bytes: of the file; max_px: width times height."""

    max_bytes: int
    max_px: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(max_bytes=settings.max_picture_bytes, max_px=settings.max_picture_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPicture:
    """image: 8-bit RGB, upright, in sRGB, without metadata. warnings: what of the file was left aside, for people."""

    image: Image.Image
    warnings: tuple[str, ...]


def read_picture(data: bytes, *, field: str, limits: Limits) -> ReadPicture:
    """A picture file's pixels: JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF, and HEIC where pillow-heif is installed.

    Of several frames or pages the first is read; transparent parts are laid on white. Raises `PictureTooLarge` before
    anything is decoded, else `PictureInvalid`; both name `field`.
    """
    with _decoding(data, field, limits):
        return _read(data, field, limits)


def check_picture(data: bytes, *, field: str, limits: Limits) -> str:
    """The file's media type. Raises what `read_picture` would, in less time: colours and orientation can't fail, so
    they are left out."""
    with _decoding(data, field, limits):
        kind = _load(data, field, limits).format or ""
        # A JPEG with more pictures behind the first, as some cameras write it, has a name of its own in Pillow.
        return "image/jpeg" if kind == "MPO" else f"image/{kind.lower()}"


def write_picture(image: Image.Image, output: Output, *, metadata: Mapping[str, str]) -> bytes:
    """An RGB picture in sRGB as a file; the same picture gives the same bytes.

    metadata: as text chunks of a PNG; as JSON in the EXIF ImageDescription of a JPEG or WebP. None at all if empty.
    """
    file = io.BytesIO()
    match output.format:
        case ImageFormat.PNG:
            image.save(file, format="PNG", compress_level=PNG_LEVEL, pnginfo=_png_chunks(metadata))
        case ImageFormat.JPEG:
            subsampling = "4:4:4" if output.quality >= CHROMA_QUALITY else "4:2:0"
            image.save(file, format="JPEG", quality=output.quality, subsampling=subsampling, exif=_exif(metadata))
        case ImageFormat.WEBP:
            image.save(file, format="WEBP", quality=output.quality, method=WEBP_METHOD, exif=_exif(metadata))
    return file.getvalue()


def _png_chunks(metadata: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"sRGB", bytes([ImageCms.Intent.PERCEPTUAL]))
    for name, value in metadata.items():
        chunks.add_text(name, value)
    return chunks


def _exif(metadata: Mapping[str, str]) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 1  # sRGB
    if metadata:
        exif[ExifTags.Base.ImageDescription] = json.dumps(dict(metadata))
    return exif


@contextmanager
def _decoding(data: bytes, field: str, limits: Limits) -> Iterator[None]:
    """Whatever the body's decoding of `data` raises, as one of the two errors."""
    if len(data) > limits.max_bytes:
        raise PictureTooLarge(
            f"{field}: the picture has {len(data):,} bytes, and {limits.max_bytes:,} are allowed", field=field
        )
    try:
        with _reading, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise PictureInvalid(f"{field}: {_what(data)}", field=field) from None
    except (PictureInvalid, PictureTooLarge, MemoryError):
        raise
    except Exception as error:
        # Hostile bytes make decoders raise anything at all.
        raise PictureInvalid(f"{field}: the picture is damaged or cut short", field=field) from error


@cache
def _heic() -> tuple[str, ...]:
    """Pillow's name for HEIC, where it can be read."""
    if find_spec("pillow_heif") is None:
        return ()
    import_module("pillow_heif").register_heif_opener()
    return ("HEIF",)


def _load(data: bytes, field: str, limits: Limits) -> ImageFile.ImageFile:
    """The first frame, decoded; in a shape and a mode that can be used."""
    source = Image.open(io.BytesIO(data), formats=_FORMATS + _heic())
    if source.width * source.height > limits.max_px:
        raise PictureTooLarge(
            f"{field}: the picture has more than {limits.max_px:,} pixels; send it smaller", field=field
        )
    if max(source.size) > MAX_ASPECT * min(source.size):
        raise PictureInvalid(
            f"{field}: the picture is {source.width} × {source.height} pixels; "
            f"its long side may be at most {MAX_ASPECT} times its short side",
            field=field,
        )
    if source.format in ("JPEG", "MPO") and _scans(data) > _SCANS:
        raise PictureInvalid(
            f"{field}: the JPEG goes over its pixels more than {_SCANS} times; save it anew", field=field
        )
    if source.format == "BMP" and source.tile[0].codec_name == "bmp_rle":
        raise PictureInvalid(f"{field}: run-length BMP can't be used; save the picture as PNG", field=field)
    source.load()
    if source.mode not in _GREY | _DEEP_GREY | _COLOUR | {"CMYK"}:
        raise PictureInvalid(
            f"{field}: pixels of the kind {source.mode} can't be used; save the picture as 8-bit RGB or grey",
            field=field,
        )
    return source


def _scans(data: bytes) -> int:
    """How many a JPEG has, up to the end of its first image."""
    count, at = 0, 2
    while (found := _MARKER.search(data, at)) and (marker := found[1][0]) != _END_OF_IMAGE:
        at = found.end()
        if marker not in _BARE:
            at += int.from_bytes(data[at : at + 2], "big")
            count += marker == _START_OF_SCAN
    return count


def _read(data: bytes, field: str, limits: Limits) -> ReadPicture:
    source = _load(data, field, limits)
    notes: list[str] = []
    image = _rgb(source, field, notes)
    if _is_animated(source):
        notes.append(f"{field}: only the first of several frames is used")
    turn = _UPRIGHT.get(_orientation(source, field, notes))
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return ReadPicture(image=image, warnings=tuple(notes))


def _is_animated(source: ImageFile.ImageFile) -> bool:
    """Asked once the first frame is read: to tell, Pillow may look at those after it, which may be damaged."""
    try:
        return source.format in _ANIMATED and getattr(source, "is_animated", False)
    except _DAMAGE:
        return True


def _orientation(source: ImageFile.ImageFile, field: str, notes: list[str]) -> int:
    try:
        return int(source.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        notes.append(f"{field}: the EXIF data can't be read; the picture is taken as upright")
        return 1


def _rgb(source: Image.Image, field: str, notes: list[str]) -> Image.Image:
    """Colours in sRGB, 8 bits each, transparency on white."""
    alpha = None
    if source.mode in _DEEP_GREY:
        colours = _shallow(source)
    elif source.mode == "CMYK":
        colours = source
    else:
        if source.has_transparency_data:
            alpha = source.convert("RGBA").getchannel("A")
        colours = source.convert("L" if source.mode in _GREY else "RGB")
    colours = _srgb(colours, source.info.get("icc_profile"), field, notes)
    if alpha is None:
        return colours
    return Image.composite(colours, Image.new("RGB", colours.size, "white"), alpha)


def _shallow(source: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit, rounded; the value that stands for transparent as white."""
    levels = np.asarray(source).astype(np.uint32)
    grey = ((levels + 128) // 257).astype(np.uint8)
    if isinstance(transparent := source.info.get("transparency"), int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey)


def _srgb(colours: Image.Image, profile: bytes | None, field: str, notes: list[str]) -> Image.Image:
    """RGB from RGB, L or CMYK by the picture's own profile; without a usable one by the plain formula."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = _PROFILED.get(source.profile.xcolor_space, "")
            if mode == colours.mode or (mode == "RGB" and colours.mode == "L"):
                return _converted(colours.convert(mode), source)
        except (ImageCms.PyCMSError, OSError):
            pass
        notes.append(f"{field}: the colour profile doesn't fit the picture; its colours are taken as sRGB")
    if colours.mode == "CMYK":
        notes.append(f"{field}: CMYK without a usable profile; its colours are approximate")
    return colours.convert("RGB")


def _converted(colours: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        colours,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # noqa: S101  it is only when converting in place
    return converted


def _what(data: bytes) -> str:
    """What a file that is no known picture seems to be, and what to send instead."""
    head = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    seen = next((name for start, name in _SEEN.items() if head.startswith(start)), None)
    brand = data[8:12] if data[4:8] == b"ftyp" else None
    if not data:
        return "the file is empty"
    if brand in HEIC_BRANDS:
        return "HEIC can't be read here (`pip install pillow-heif` on the server adds it); send JPEG, PNG or WebP"
    if head.startswith(_KNOWN) or brand in AVIF_BRANDS or data[8:12] == b"WEBP":
        return "the picture is damaged or cut short"
    if brand:
        seen = "a video"
    elif seen is None and all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in data[:64]):
        seen = "text"
    return f"this is {seen or 'no known picture format'}; send JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF"
