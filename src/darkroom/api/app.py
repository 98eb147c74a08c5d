"""The HTTP application."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from darkroom.api import account, docs, errors, events, files, health, history, loras, uploads, v1, v2, webhooks
from darkroom.api.access import Access
from darkroom.api.courier import Courier
from darkroom.api.forwarded import Forwarded
from darkroom.api.openapi import openapi
from darkroom.service import Service


def create_app(service: Service) -> FastAPI:
    """Serves `service`, which lives as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        courier = asyncio.create_task(Courier(service).run(), name="courier")
        try:
            yield
        finally:
            courier.cancel()
            await asyncio.gather(courier, return_exceptions=True)
            await service.stop()

    # No schema is better than one guessed from signatures that read the body themselves.
    app = FastAPI(title="Darkroom", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.service = service
    app.state.openapi = openapi(service.catalogue, service.settings)
    errors.install(app)
    app.add_middleware(Access)
    app.add_middleware(Forwarded, trusted=service.settings.trusted_proxies)
    for part in (health, docs, account, events, history, files, loras, uploads, webhooks, v1, v2):
        app.include_router(part.router)
    return app
