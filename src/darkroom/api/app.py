"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from darkroom.api import account, docs, errors, files, health, history, loras, uploads, v1, v2
from darkroom.api.access import Access
from darkroom.api.forwarded import Forwarded
from darkroom.api.openapi import openapi
from darkroom.service import Service


def create_app(service: Service) -> FastAPI:
    """Serves `service`, which lives as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    # No schema is better than one guessed from signatures that read the body themselves.
    app = FastAPI(title="Darkroom", lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.service = service
    app.state.openapi = openapi(service.catalogue, service.settings)
    errors.install(app)
    app.add_middleware(Access)
    app.add_middleware(Forwarded, trusted=service.settings.trusted_proxies)
    for part in (health, docs, account, history, files, loras, uploads, v1, v2):
        app.include_router(part.router)
    return app
