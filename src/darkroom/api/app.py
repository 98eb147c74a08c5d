"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from darkroom.api import account, errors, files, health, v1, v2
from darkroom.api.access import Access
from darkroom.api.links import Links, read_secret
from darkroom.service import Service

SECRET_FILE = "secret"  # noqa: S105  the file's name, under `DARKROOM_DATA`


def create_app(service: Service) -> FastAPI:
    """Serves `service`, which lives as long as the application does. Raises `BadSetting`."""

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
    app.state.links = Links(read_secret(service.settings.data / SECRET_FILE))
    errors.install(app)
    app.add_middleware(Access)
    for router in (health.router, account.router, files.router, v1.router, v2.router):
        app.include_router(router)
    return app
