"""The contact sheet: a row for each edit, with what went in, what was asked, and what came out."""

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE_PX = 256
GAP_PX = 24
HEAD_PX, LABEL_PX = 96, 30
PROMPT_PX = 380
MOST_BEFORE = 2
INK, QUIET, FAINT, RESULT = "#1b1b1b", "#6b6b6b", "#c8c8c8", "#0a7d33"

_BEFORE_PX = MOST_BEFORE * (TILE_PX + GAP_PX)
_WIDTH_PX = 2 * GAP_PX + _BEFORE_PX + PROMPT_PX + GAP_PX + TILE_PX
_ROW_PX = LABEL_PX + TILE_PX + GAP_PX


@dataclass(frozen=True, kw_only=True)
class Row:
    """before: the request's pictures, in the prompt's order. facts: what else there is to say, in a few words."""

    slug: str
    prompt: str
    before: Sequence[Path]
    after: Path
    facts: str


def draw(title: str, subtitle: str, rows: Sequence[Row], path: Path) -> None:
    """As a PNG. Pictures of any size are shown in squares of `TILE_PX`."""
    page = Image.new("RGB", (_WIDTH_PX, HEAD_PX + len(rows) * _ROW_PX), "white")
    pen = ImageDraw.Draw(page)
    pen.text((GAP_PX, 20), title, fill=INK, font=_font(28))
    pen.text((GAP_PX, 60), subtitle, fill=QUIET, font=_font(16))
    for number, row in enumerate(rows):
        _draw_row(page, pen, row, HEAD_PX + number * _ROW_PX)
    page.save(path)


def _draw_row(page: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    for place, before in enumerate(row.before):
        left = GAP_PX + place * (TILE_PX + GAP_PX)
        pen.text((left, top + 6), f"image {place + 1}", fill=QUIET, font=_font(16))
        _paste(page, before, (left, top + LABEL_PX))
        pen.rectangle((left - 1, top + LABEL_PX - 1, left + TILE_PX, top + LABEL_PX + TILE_PX), outline=FAINT)
    left = GAP_PX + _BEFORE_PX
    pen.text((left, top + LABEL_PX), row.slug, fill=QUIET, font=_font(14))
    lines = _wrapped(row.prompt, PROMPT_PX, _font(20))
    pen.multiline_text((left, top + LABEL_PX + 30), "\n".join(lines), fill=INK, font=_font(20), spacing=8)
    bottom = top + LABEL_PX + TILE_PX
    pen.text((left, bottom - 22), row.facts, fill=QUIET, font=_font(16))
    left += PROMPT_PX + GAP_PX
    pen.text((left, top + 6), "result", fill=RESULT, font=_font(16))
    pen.rectangle((left - 4, top + LABEL_PX - 4, left + TILE_PX + 3, bottom + 3), fill=RESULT)
    _paste(page, row.after, (left, top + LABEL_PX))


def write_page(title: str, subtitle: str, rows: Sequence[Row], path: Path, *, note: str = "") -> None:
    """As one HTML file with the pictures in it. note: HTML below the rows."""
    body = "".join(_section(row) for row in rows)
    style = (
        "body{font:17px/1.5 system-ui,sans-serif;color:#1b1b1b;max-width:1100px;margin:2rem auto;padding:0 1rem}"
        "section{display:flex;flex-wrap:wrap;gap:1.5rem;align-items:center;margin:2rem 0}"
        "figure{margin:0}figcaption,small{color:#6b6b6b}div{flex:1 1 16rem}"
        "img{width:256px;display:block;outline:1px solid #c8c8c8}"
        ".result img{outline:4px solid #0a7d33}.result figcaption{color:#0a7d33}"
    )
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p>{body}{note}</html>\n",
        encoding="utf-8",
    )


def _section(row: Row) -> str:
    before = "".join(figure(path, f"image {place + 1}") for place, path in enumerate(row.before))
    words = f"<div><small>{row.slug}</small><p>{html.escape(row.prompt)}</p><small>{row.facts}</small></div>"
    return f"<section>{before}{words}{figure(row.after, 'result')}</section>"


def figure(picture: Path, caption: str) -> str:
    kind = "jpeg" if picture.suffix == ".jpg" else "png"
    data = b64encode(picture.read_bytes()).decode()
    return (
        f'<figure class="{caption}"><figcaption>{caption}</figcaption>'
        f'<img src="data:image/{kind};base64,{data}" alt="{caption}"></figure>'
    )


def _paste(page: Image.Image, picture: Path, corner: tuple[int, int]) -> None:
    with Image.open(picture) as opened:
        page.paste(opened.convert("RGB").resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS), corner)


def _wrapped(text: str, width_px: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this build of Pillow has no FreeType: install Pillow from PyPI")
    return font
