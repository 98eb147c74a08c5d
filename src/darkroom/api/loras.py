"""The LoRAs that requests can have by name."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from darkroom.api.context import Caller, Serving
from darkroom.lora.shelf import Shelf

router = APIRouter(prefix="/v2")

SHOWN = ("name", "trigger", "scale", "installed", "digest")


@router.get("/loras")
async def loras(service: Serving, _: Caller) -> Response:
    """What others' requests have brought is not among them: it goes by no name."""
    return JSONResponse({"loras": await asyncio.to_thread(_named, Shelf(service.loras))})


def _named(shelf: Shelf) -> list[dict[str, Any]]:
    return [{fact: getattr(one, fact) for fact in SHOWN} for one in shelf.listed() if one.name is not None]
