"""The main job, as a client would do it: start the service, edit the samples through its API, lay out the results.

Only the standard library speaks to the server here, so that this reads as an example of the API.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from contact_sheet import Row, draw, figure, write_page

from darkroom.checkpoint.locate import NANO

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
PHOTO = {"slug": "qwen-image-edit-plus", "prompt": "Make it night.", "pictures": ["mug.jpg"]}
DARKROOM = str(Path(sys.executable).parent / "darkroom")
TITLE = "Five edits, one for each product page"
SUBTITLE = "Made by nano, the small model that comes with Darkroom, of scenes it has never seen. 128 px, enlarged."
POLL_S = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="a folder like nano's (default: none is named to the service)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, offered((asked.checkpoint or NANO) / "loras") as loras:
        settings = {"DARKROOM_DATA": data, "DARKROOM_FETCH_ALLOW": loras, "DARKROOM_DEVICE": "cpu"}
        if asked.checkpoint:
            settings["DARKROOM_CHECKPOINT"] = str(asked.checkpoint)
        with serving(settings, asked.out / "serve.log") as (url, key):
            edits = json.loads((SAMPLES / "edits.json").read_text())
            rows = [edit(url, key, one, f"http://{loras}", asked.out) for one in edits]
            photo = edit(url, key, PHOTO, "", asked.out)
    draw(TITLE, SUBTITLE, rows, asked.out / "sheet.png")
    write_page(TITLE, SUBTITLE, rows, asked.out / "sheet.html", note=about(photo))
    print(f"\nThe contact sheet: {asked.out / 'sheet.png'}\n            and as: {asked.out / 'sheet.html'}")
    print(f"A photo is outside the world of nano, and comes out like this: {photo.after}")


@contextmanager
def serving(settings: dict[str, str], log: Path) -> Iterator[tuple[str, str]]:
    """A service of our own on a free port, with no other settings; its address and its first key."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("DARKROOM_")}
    environment = plain | settings | {"PYTHONUNBUFFERED": "1"}
    print(f"Starting the service: darkroom serve (its log: {log}) …", flush=True)
    with log.open("w") as stderr:
        command = [DARKROOM, "serve", "--port", "0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        try:
            url, key = greeting(server, log)
            said = [line for line in log.read_text().splitlines() if line.startswith("darkroom: ")]
            print("\n".join([*said, f"Ready on {url}"]), flush=True)
            yield url, key
        finally:
            server.terminate()
            server.communicate()


def greeting(server: subprocess.Popen[str], log: Path) -> tuple[str, str]:
    """The address and the first key, from what the server prints when it is ready."""
    url = key = ""
    for line in server.stdout or ():
        if line.startswith("Darkroom is ready on "):
            url = line.split()[-1]
        if line.startswith("API key: "):
            key = line.split()[-1]
        if url and key:
            return url, key
    sys.exit(f"the service did not start; its log says why: {log}")


@contextmanager
def offered(folder: Path) -> Iterator[str]:
    """A host on this machine that has the folder's files, as Hugging Face has its own: host:port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
            """Says nothing."""

        def copyfile(self, source: Any, outputfile: Any) -> None:
            # Whoever looks a file's header up hangs up before the rest.
            with suppress(ConnectionError):
                super().copyfile(source, outputfile)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{host.server_port}"
        host.shutdown()


def edit(url: str, key: str, asked: Mapping[str, Any], loras: str, out: Path) -> Row:
    """Submit, poll until it has ended, fetch the picture. loras: where the second LoRA is, if there is to be one."""
    before = [SAMPLES / name for name in asked["pictures"]]
    first = "image" if asked["slug"] == PHOTO["slug"] else "image_1"
    body: dict[str, Any] = dict(zip((first, "image_2"), map(data_url, before), strict=False))
    body |= {"prompt": asked["prompt"], "go_fast": True, "image_format": "png", "seed": 7}
    facts = ""
    if "lora" in asked:
        body |= {"lora": asked["lora"], "lora_2_url": f"{loras}/{asked['lora_2']}.safetensors"}
        facts = f"with {asked['lora']} and {asked['lora_2']}"
    started = time.perf_counter()
    submitted = call(f"{url}/v2/{asked['slug']}", key, body)
    while (result := call(submitted["response_url"], key))["status"] in ("QUEUED", "PROCESSING"):
        time.sleep(POLL_S)
    took_s = time.perf_counter() - started
    after = out / f"{before[0].stem}-edited.png"
    with urllib.request.urlopen(result["output"], timeout=30) as picture:
        after.write_bytes(picture.read())
    steps = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in result["timings"].items())
    print(f"  {took_s:5.2f} s  {asked['slug']}: {asked['prompt']}\n           {steps}", flush=True)
    return Row(slug=asked["slug"], prompt=asked["prompt"], before=before, after=after, facts=f"{took_s:.1f} s {facts}")


def data_url(picture: Path) -> str:
    kind = "jpeg" if picture.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{b64encode(picture.read_bytes()).decode()}"


def call(url: str, key: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One JSON exchange; an HTTP error carries JSON, too."""
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode() if body else None,
        headers={"x-api-key": key, "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {error.read().decode()}")


def about(photo: Row) -> str:
    """What becomes of a photo, for the page."""
    return (
        "<hr><h2>And a photo?</h2><p>Nano has seen nothing but rendered scenes of a few things, so it makes little of "
        f"“{photo.prompt}” here. Photos are for the real checkpoint.</p>"
        f"<section>{figure(photo.before[0], 'image 1')}{figure(photo.after, 'result')}</section>"
    )


if __name__ == "__main__":
    main()
