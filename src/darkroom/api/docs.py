"""The API's document, and the page that shows it: Swagger UI from a package, and nothing from any other host."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from darkroom.errors import UnknownPath

router = APIRouter()

PACKAGE = "fastapi_offline"
START = "start.js"

ASSETS = {
    START: "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
"""The page's files and their media types; all but the first come with the package."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Darkroom: the API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
"""Its addresses are relative: the server may stand behind a path of its host."""

SCRIPT = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
});
"""
"""Without `validatorUrl: null` the page would ask a server of Swagger's about the document."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Holds the browser to it: whatever the packaged script contains, no other host is asked."""


@router.get("/", include_in_schema=False)
async def root() -> Response:
    """To the page, by a relative address, as the page's own are."""
    return RedirectResponse("docs")


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    return JSONResponse(request.app.state.openapi)


@router.get("/docs")
async def page() -> Response:
    return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})


@router.get("/docs/{asset}")
def asset(asset: str) -> Response:
    """Raises `UnknownPath`."""
    if asset not in ASSETS:
        raise UnknownPath(f"The page has no file {asset}")
    data = SCRIPT.encode() if asset == START else files(PACKAGE).joinpath("static", asset).read_bytes()
    return Response(data, media_type=ASSETS[asset], headers={"cache-control": "max-age=3600"})
