"""Pictures in, pictures out."""

import io
import json
import struct
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from darkroom.edit import ImageFormat, Output
from darkroom.errors import PictureInvalid, PictureTooLarge
from darkroom.picture import Limits, check_picture, read_picture, write_picture

LIMITS = Limits(max_bytes=10_000_000, max_px=1_000_000)
LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}, "GIF": {}}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}, "WEBP": {"quality": 95}}
RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)


def corners(width=48, height=32):
    """Four quarters, so that any turn or mirroring shows: red green / blue yellow."""
    quarters = Image.fromarray(np.array([[RED, GREEN], [BLUE, YELLOW]], dtype=np.uint8))
    return quarters.resize((width, height), Image.Resampling.NEAREST)


def gradient(width=64, height=64):
    """Smooth, so that every codec can keep it."""
    y, x = np.mgrid[0:height, 0:width] / (width - 1)
    return Image.fromarray(np.stack([200 * x, 200 * y, 100 + 50 * x], axis=-1).astype(np.uint8))


def noise(width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def read(data, **options):
    return read_picture(data, field="image_2", **{"limits": LIMITS, **options})


def pixels(image):
    return np.asarray(image).astype(int)


def assert_like(image, other, tolerance=0):
    assert image.mode == "RGB"
    assert image.size == other.size
    assert np.abs(pixels(image) - pixels(other)).max() <= tolerance


class TestFormats:
    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_lossless_formats_come_back_exactly(self, kind):
        """What was stored without loss is read without loss, and nothing is said about it."""
        image = corners()
        found = read(file_of(image, kind, **LOSSLESS[kind]))
        assert_like(found.image, image)
        assert found.warnings == ()

    @pytest.mark.parametrize("kind", LOSSY)
    def test_lossy_formats_come_back_closely(self, kind):
        """What was stored with loss is read with no more of it."""
        assert_like(read(file_of(gradient(), kind, **LOSSY[kind])).image, gradient(), 6)

    def test_heic(self):
        """HEIC is read where pillow-heif is installed."""
        heif = pytest.importorskip("pillow_heif", reason="an optional dependency")
        heif.register_heif_opener()
        assert_like(read(file_of(gradient(), "HEIF", quality=95)).image, gradient(), 6)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        turned = gradient(64, 32).transpose(STORED[6])
        assert_like(read(file_of(turned, "HEIF", quality=95, exif=exif.tobytes())).image, gradient(64, 32), 6)

    def test_phone_photos_with_a_second_picture_inside_are_one_picture(self):
        """A multi-picture JPEG, which many cameras write, is its first picture, and no animation."""
        found = read(file_of(corners(), "MPO", save_all=True, append_images=[noise(48, 32)], quality=95))
        assert_like(found.image, corners(), 255)
        assert pixels(found.image)[2, 2] == pytest.approx(RED, abs=24)
        assert found.warnings == ()

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
    def test_first_of_several_frames(self, kind):
        """Of an animated file, or one with pages, the first frame is read, and a warning says so."""
        lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
        second = Image.new("RGB", (48, 32), "black")
        found = read(file_of(corners(), kind, save_all=True, append_images=[second], **lossless))
        assert_like(found.image, corners(), 12 if kind == "AVIF" else 0)
        assert found.warnings == ("image_2: only the first of several frames is used",)

    def test_nothing_of_the_file_stays_with_the_picture(self):
        """No metadata of an input (a place, a name) can reach an output through the picture."""
        exif = Image.Exif()
        exif[ExifTags.Base.Artist] = "somebody"
        image = read(file_of(corners(), "JPEG", exif=exif, comment=b"hello")).image
        assert image.info == {}
        assert not image.getexif()


STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera held so stores an upright picture: the inverse of what a reader has to do."""


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", STORED)
    def test_all_eight(self, orientation, kind):
        """However the camera was held, the picture is upright, once."""
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        turn = STORED[orientation]
        stored = corners().transpose(turn) if turn is not None else corners()
        quality = {} if kind in ("PNG", "TIFF") else {"quality": 95}
        image = read(file_of(stored, kind, exif=exif, **quality)).image
        assert image.size == (48, 32)
        for (x, y), colour in {(4, 4): RED, (44, 4): GREEN, (4, 28): BLUE, (44, 28): YELLOW}.items():
            assert pixels(image)[y, x] == pytest.approx(colour, abs=16)

    def test_senseless_orientation_is_upright(self):
        """A number that means nothing is passed over, as browsers do."""
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 99
        assert_like(read(file_of(corners(), "PNG", exif=exif)).image, corners())

    def test_broken_exif_costs_the_orientation_only(self):
        """EXIF data that is garbage doesn't cost the picture."""
        found = read(file_of(corners(), "PNG", exif=b"Exif\0\0garbage"))
        assert_like(found.image, corners())
        assert found.warnings == ("image_2: the EXIF data can't be read; the picture is taken as upright",)


def icc_profile(columns, gamma):
    """A minimal v2 display profile: XYZ columns of red, green and blue (relative to D50), one gamma for all."""

    def fixed(value):
        return struct.pack(">i", round(value * 65536))

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    name = b"test\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(4 + 4 + 2 + 1 + 67)
    description += bytes(-len(description) % 4)
    tags = {
        b"desc": description,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz(columns[0]),
        b"gXYZ": xyz(columns[1]),
        b"bXYZ": xyz(columns[2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = struct.pack(">I", len(tags)), b""
    at = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body


SRGB_COLUMNS = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE_COLUMNS = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


class TestColour:
    def test_profile_is_applied(self):
        """A wide-gamut picture's colours are those its profile means, by the definition of sRGB."""
        profile = icc_profile(ADOBE_COLUMNS, 2.2)
        image = Image.new("RGB", (16, 16), (180, 140, 120))
        linear = (np.array([180, 140, 120]) / 255) ** 2.19921875
        srgb = np.linalg.solve(np.array(SRGB_COLUMNS).T, np.array(ADOBE_COLUMNS).T @ linear)
        expected = 255 * np.where(srgb <= 0.0031308, 12.92 * srgb, 1.055 * srgb ** (1 / 2.4) - 0.055)
        assert np.abs(expected - (180, 140, 120)).max() > 10
        for kind in ("PNG", "TIFF", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            found = read(file_of(image, kind, icc_profile=profile, **options))
            assert pixels(found.image)[8, 8] == pytest.approx(expected, abs=2)
            assert found.warnings == ()

    def test_srgb_profile_changes_nothing(self):
        """A picture that says it is sRGB keeps its pixels."""
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        assert_like(read(file_of(noise(), "PNG", icc_profile=profile)).image, noise())

    def test_swapped_primaries_in_a_palette_with_transparency(self):
        """Profile, palette and transparency work together: colours first, then the white ground."""
        swapped = icc_profile((SRGB_COLUMNS[1], SRGB_COLUMNS[0], SRGB_COLUMNS[2]), 2.2)
        image = Image.new("P", (4, 4), 0)
        image.putpalette([255, 0, 0, 1, 2, 3])
        image.putpixel((0, 0), 1)
        found = read(file_of(image, "PNG", transparency=bytes([255, 0]), icc_profile=swapped))
        assert pixels(found.image)[1, 1] == pytest.approx(GREEN, abs=2)
        assert tuple(pixels(found.image)[0, 0]) == WHITE

    def test_unusable_profile_is_said(self):
        """A broken profile costs the colours' exactness, not the picture."""
        found = read(file_of(noise(), "PNG", icc_profile=b"not a profile"))
        assert_like(found.image, noise())
        assert found.warnings == ("image_2: the colour profile doesn't fit the picture; its colours are taken as sRGB",)

    def test_grey_with_a_colour_profile(self):
        """A grey picture under an RGB profile is taken as equal parts of it."""
        found = read(file_of(Image.new("L", (8, 8), 128), "PNG", icc_profile=icc_profile(SRGB_COLUMNS, 1.0)))
        assert pixels(found.image)[0, 0] == pytest.approx((188, 188, 188), abs=1)

    def test_cmyk(self):
        """CMYK without a profile is converted plainly, and that is said."""
        image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        for data, tolerance in ((file_of(image, "TIFF"), 0), (file_of(image, "JPEG", quality=95), 8)):
            found = read(data)
            assert pixels(found.image)[8, 8] == pytest.approx(RED, abs=tolerance)
            assert found.warnings == ("image_2: CMYK without a usable profile; its colours are approximate",)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_sixteen_bit_grey_is_scaled(self, kind):
        """16-bit grey keeps its full range: the brightest stays white, the middle stays the middle."""
        levels = np.array([[0, 128, 257, 32768, 65535, 129]], dtype=np.uint16)
        found = read(file_of(Image.fromarray(levels), kind))
        assert pixels(found.image)[0, :, 0].tolist() == [0, 0, 1, 128, 255, 1]

    def test_big_endian_sixteen_bit_grey(self):
        """Byte order is the file's business."""
        image = Image.fromarray(np.array([[0, 65535, 32768]], dtype=">u2"))
        data = file_of(image, "TIFF")
        assert data.startswith(b"MM")
        assert pixels(read(data).image)[0, :, 1].tolist() == [0, 255, 128]

    def test_sixteen_bit_colour(self):
        """16-bit RGB is read in 8 bits, not clipped."""
        found = read(png(2, 1, depth=16, colour=2, rows=[b"\0" + struct.pack(">6H", 65535, 32768, 0, 257, 0, 65535)]))
        assert_like(found.image, Image.fromarray(np.array([[[255, 128, 0], [1, 0, 255]]], dtype=np.uint8)), 1)

    def test_sixteen_bit_transparency(self):
        """The one value of 16-bit grey that stands for transparent becomes white."""
        rows = [b"\0" + struct.pack(">3H", 0, 1000, 1001)]
        found = read(png(3, 1, depth=16, colour=0, rows=rows, extra=chunk(b"tRNS", struct.pack(">H", 1000))))
        assert pixels(found.image)[0, :, 0].tolist() == [0, 255, 4]

    @pytest.mark.parametrize("mode", ["1", "L"])
    def test_grey(self, mode):
        """Bilevel and grey pictures become equal parts of red, green and blue."""
        found = read(file_of(corners().convert("L").convert(mode)))
        assert_like(found.image, corners().convert("L").convert(mode).convert("RGB"))

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_alpha_lies_on_white(self, mode):
        """Transparent is white, half transparent is half white, opaque is itself."""
        image = Image.new(mode, (3, 1))
        for x, alpha in enumerate((0, 128, 255)):
            image.putpixel((x, 0), (*(0 for _ in image.getbands()[1:]), alpha))
        assert pixels(read(file_of(image)).image)[0, :, 0].tolist() == [255, 127, 0]

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_palette_transparency(self, kind):
        """The transparent entry of a palette becomes white."""
        image = Image.new("P", (4, 4), 0)
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((1, 2), 1)
        found = pixels(read(file_of(image, kind, transparency=0)).image)
        assert tuple(found[2, 1]) == (200, 100, 50)
        assert tuple(found[0, 0]) == WHITE

    def test_colour_key_transparency(self):
        """The one colour of an RGB picture that stands for transparent becomes white."""
        image = Image.new("RGB", (2, 1), RED)
        image.putpixel((0, 0), BLUE)
        found = pixels(read(file_of(image, transparency=BLUE)).image)
        assert found[0].tolist() == [list(WHITE), list(RED)]

    def test_float_pixels_are_refused(self):
        """Pixels whose white nobody knows are refused rather than guessed."""
        with pytest.raises(PictureInvalid, match="8-bit RGB or grey") as caught:
            read(file_of(Image.new("F", (4, 4), 0.5), "TIFF"))
        assert caught.value.field == "image_2"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *, depth=8, colour=2, rows=(), extra=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + body + chunk(b"IEND", b"")


class TestLimits:
    def test_bytes(self):
        """A file over the limit is refused unseen, with both figures."""
        with pytest.raises(PictureTooLarge, match=r"image_2: .* 101 bytes, and 100 are allowed") as caught:
            read(bytes(101), limits=Limits(max_bytes=100, max_px=1))
        assert caught.value.field == "image_2"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
    def test_pixels(self, kind):
        """A picture of one pixel more than allowed is refused, one of just as many is read."""
        data = file_of(noise(40, 30), kind)
        assert read(data, limits=Limits(max_bytes=10**6, max_px=1200)).image.size == (40, 30)
        with pytest.raises(PictureTooLarge, match=r"more than 1,199 pixels"):
            read(data, limits=Limits(max_bytes=10**6, max_px=1199))

    @pytest.mark.parametrize("side", [1001, 30_000, 2**31 - 1])
    def test_bomb(self, side):
        """A header that promises billions of pixels is refused by the header."""
        with pytest.raises(PictureTooLarge):
            read(png(side, side, rows=[b"\0"]))

    @pytest.mark.parametrize("behind", [b"", b"\xff\xda" * 1000], ids=["nothing", "a video"])
    def test_a_jpeg_may_go_over_its_pixels_some_times(self, behind):
        """A baseline or a progressive one is read, also with other data behind it, as phones write it."""
        for progressive in (False, True):
            assert read(file_of(noise(), "JPEG", progressive=progressive) + behind).image.size == noise().size

    def test_a_jpeg_may_not_go_over_its_pixels_without_end(self):
        """A few bytes would cost a picture's work each."""
        whole = file_of(noise(), "JPEG", progressive=True)
        last = whole.rindex(b"\xff\xda")
        with pytest.raises(PictureInvalid, match="more than 64 times"):
            read(whole[:-2] + whole[last:-2] * 64 + whole[-2:])

    @pytest.mark.parametrize("bits", [4, 8])
    def test_a_run_length_bmp_is_refused(self, bits):
        """Pillow takes seconds and the interpreter's lock to decode one."""
        header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, bits, 3 - bits // 4, 4, 0, 0, 2, 0)
        palette = bytes(4 * 2)
        start = 14 + len(header) + len(palette)
        data = b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start) + header + palette + b"\x08\x01\0\x01"
        with pytest.raises(PictureInvalid, match="run-length BMP"):
            read(data)

    def test_limit_above_pillows_own(self):
        """The limit is the caller's, also where Pillow's own would be lower."""
        limits = Limits(max_bytes=10**7, max_px=400_000_000)
        with pytest.raises(PictureInvalid, match="damaged or cut short"):
            read(png(19_000, 19_000, rows=[b"\0"]), limits=limits)

    @pytest.mark.parametrize("size", [(17, 1), (1, 17), (400, 3)])
    def test_slivers(self, size):
        """A picture too long for its width can't be worked on, and is refused with its size."""
        with pytest.raises(PictureInvalid, match=f"{size[0]} × {size[1]} pixels"):
            read(file_of(Image.new("RGB", size)))
        assert read(file_of(Image.new("RGB", (16, 1)))).image.size == (16, 1)

    def test_nothing_of_it_outlives_the_call(self):
        """Pillow's own limit and Python's warning filters are as before, also after failures and side by side."""
        before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
        good, bomb = file_of(noise()), png(30_000, 30_000, rows=[b"\0"])

        def some():
            for _ in range(10):
                read(good)
                with pytest.raises(PictureTooLarge):
                    read(bomb)

        threads = [threading.Thread(target=some) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


class TestDamaged:
    def test_frames_after_the_first(self):
        """However one that is not read is cut: what passes the check at the door is read by the worker, with a word."""
        two = [Image.new("P", (40, 30)), noise(40, 30).convert("P")]
        whole = file_of(two[0], "GIF", save_all=True, append_images=two[1:])
        first = len(file_of(two[0], "GIF"))
        readable = 0
        for end in range(first + 20, len(whole)):
            with suppress(PictureInvalid):
                check_picture(whole[:end], field="image", limits=LIMITS)
                assert read(whole[:end]).warnings
                readable += 1
        assert readable

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("part", [0.02, 0.1, 0.25, 0.5, 0.75, 0.95])
    def test_truncated(self, kind, part):
        """A file cut short is refused, wherever it was cut; half a picture is never edited."""
        data = file_of(noise(64, 64), kind)
        with pytest.raises(PictureInvalid) as caught:
            read(data[: max(4, int(len(data) * part))])
        assert caught.value.field == "image_2"

    @settings(deadline=None)
    @given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]), st.floats(0, 1))
    def test_cut_anywhere(self, kind, part):
        """Wherever a file ends too early, even by its last byte, it is refused, unless every pixel was there."""
        data = file_of(noise(32, 32), kind)
        with suppress(PictureInvalid):
            assert_like(read(data[: int(len(data) * part)]).image, read(data).image)

    @settings(max_examples=300, deadline=None)
    @given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]), st.data())
    def test_any_damage_is_an_error_of_the_picture(self, kind, data):
        """Whatever bytes are cut or changed, the outcome is a picture or one of the two errors, never a warning."""
        file = bytearray(file_of(noise(24, 24), kind))
        for _ in range(data.draw(st.integers(1, 6))):
            file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
        file = file[: data.draw(st.integers(0, len(file)))]
        with suppress(PictureInvalid, PictureTooLarge):
            assert read(bytes(file)).image.mode == "RGB"

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]), st.data())
    def test_what_passes_the_check_can_be_read(self, kind, data):
        """The check at the door and the reading in the worker agree on every file, down to the message."""
        file = bytearray(file_of(noise(24, 24), kind))
        for _ in range(data.draw(st.integers(0, 3))):
            file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))

        def outcome(step):
            try:
                step(bytes(file), field="image", limits=LIMITS)
            except (PictureInvalid, PictureTooLarge) as error:
                return error.message
            return None

        assert outcome(check_picture) == outcome(read_picture)

    @pytest.mark.parametrize(
        ("data", "seen"),
        [
            (b"", "the file is empty"),
            (b"<!DOCTYPE html><html><body>404</body></html>", "a web page (HTML)"),
            (b"\n\n <html>", "a web page (HTML)"),
            (b'{"error": "not found"}', "JSON"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
            (b"%PDF-1.7", "a PDF"),
            (b"\0\0\0\x18ftypmp42" + bytes(20), "a video"),
            (b"just some words", "text"),
            (b"\x00\x01\x02\x03" * 10, "no known picture format"),
            (b"\x89PNG\r\n\x1a\n", "damaged or cut short"),
            (b"\xff\x0a" + bytes(20), "a JPEG XL picture"),
        ],
    )
    def test_what_is_no_picture_is_called_by_its_name(self, data, seen):
        """Somebody who sent something else is told what it was."""
        with pytest.raises(PictureInvalid) as caught:
            read(data)
        assert seen in caught.value.message
        assert caught.value.message.startswith("image_2: ")

    def test_no_other_decoder_is_tried(self):
        """Formats that are not promised are not decoded, though the library could."""
        with pytest.raises(PictureInvalid, match="this is"):
            read(file_of(noise(), "PPM"))


METADATA = {"seed": "7", "slug": "qwen-image-edit-plus", "request_id": "r1"}


class TestWriting:
    @pytest.mark.parametrize("kind", ImageFormat)
    def test_the_same_bytes_each_time(self, kind):
        """The same picture and metadata give the same file."""
        output = Output(format=kind, quality=90)
        assert write_picture(noise(), output, metadata=METADATA) == write_picture(noise(), output, metadata=METADATA)

    def test_png_is_exact(self):
        """PNG keeps every pixel, whatever the quality."""
        data = write_picture(noise(), Output(format=ImageFormat.PNG, quality=1), metadata=METADATA)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert_like(image, noise())

    @pytest.mark.parametrize("kind", [ImageFormat.JPEG, ImageFormat.WEBP])
    def test_quality(self, kind):
        """A higher quality is nearer to the pixels and takes more bytes."""
        files = [write_picture(noise(), Output(format=kind, quality=q), metadata={}) for q in (10, 60, 95)]
        errors = [np.abs(pixels(read(data).image) - pixels(noise())).mean() for data in files]
        assert errors == sorted(errors, reverse=True)
        assert sorted(files, key=len) == files

    @pytest.mark.parametrize(("quality", "sampling"), [(90, (1, 1)), (89, (2, 2))])
    def test_jpeg_colour_is_whole_from_90_on(self, quality, sampling):
        """At high quality no colour resolution is lost."""
        data = write_picture(noise(), Output(format=ImageFormat.JPEG, quality=quality), metadata={})
        with Image.open(io.BytesIO(data)) as image:
            assert image.layer[0][1:3] == sampling

    @pytest.mark.parametrize("kind", ImageFormat)
    def test_metadata(self, kind):
        """Seed, slug and request id can be read out of the file with any tool."""
        data = write_picture(noise(), Output(format=kind, quality=90), metadata=METADATA)
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == kind.upper()
            if isinstance(image, PngImagePlugin.PngImageFile):
                assert image.text == METADATA
                assert image.info["srgb"] == 0
            else:
                exif = image.getexif()
                assert json.loads(exif[ExifTags.Base.ImageDescription]) == METADATA
                assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] == 1

    @pytest.mark.parametrize("kind", ImageFormat)
    def test_without_metadata(self, kind):
        """Told nothing, the file says nothing."""
        data = write_picture(noise(), Output(format=kind, quality=90), metadata={})
        with Image.open(io.BytesIO(data)) as image:
            assert ExifTags.Base.ImageDescription not in image.getexif()
            assert getattr(image, "text", {}) == {}

    @pytest.mark.parametrize("kind", ImageFormat)
    def test_what_is_written_can_be_read(self, kind):
        """A result is a valid input, upright and without a word of warning."""
        found = read(write_picture(corners(), Output(format=kind, quality=95), metadata=METADATA))
        assert found.warnings == ()
        assert found.image.size == (48, 32)
        assert pixels(found.image)[4, 4] == pytest.approx(RED, abs=16)
