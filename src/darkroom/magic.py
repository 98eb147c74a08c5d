"""What a file is, by its first bytes: nobody's word (a suffix, a Content-Type) is taken for it."""

HEAD_BYTES = 16
"""As many as are needed to tell."""

_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\x00",  # TIFF, both byte orders, then BigTIFF
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)
AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""What an ISO file says that it is, behind `ftyp`."""
_TEXT_STARTS = (b"<", b"{", b"[")


def is_picture(head: bytes) -> bool:
    """Whether a file that starts so claims to be a JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP or TIFF."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS | HEIC_BRANDS)
    )


def is_markup(head: bytes) -> bool:
    """Whether a file that starts so is a web page or a JSON answer, as servers send in a picture's stead."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_TEXT_STARTS)
