"""The key's account, and the models it can use, under the paths that Segmind's SDK calls."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from darkroom.api.context import Caller, Serving
from darkroom.catalogue.card import Card
from darkroom.catalogue.parameter import Parameter
from darkroom.job import MICRO

router = APIRouter()

SHOWN = ("type", "description", "required", "default", "minimum", "maximum", "enum", "extension")


@router.get("/v1/get-user-credits")
async def credits_left(key: Caller) -> Response:
    return JSONResponse({"credits": key.balance_micro / MICRO, "free-credits": 0})


@router.get("/api/auth/authenticate")
async def authenticate(key: Caller) -> Response:
    return JSONResponse(
        {
            "id": key.id,
            "name": key.name,
            "credits": key.balance_micro / MICRO,
            "rate_per_minute": key.rate_per_minute,
            "models": key.models,
        }
    )


@router.get("/inference-model-information/list")
async def models(service: Serving, key: Caller) -> Response:
    """The models that the key may use."""
    cards = [_card(card) for slug, card in service.catalogue.items() if key.models is None or slug in key.models]
    return JSONResponse({"Inference Segmind Model Information List With Details": cards})


def _card(card: Card) -> dict[str, Any]:
    return {
        "slug": card.slug,
        "title": card.title,
        "type": "image-to-image",
        "description": card.description,
        "price": card.price_micro / MICRO,
        "parameters": {name: _parameter(parameter) for name, parameter in card.parameters.items()},
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    """What a client is to know: no key for what is not so."""
    facts = asdict(parameter)
    return {fact: facts[fact] for fact in SHOWN if facts[fact] not in (None, (), "")}
