"""The main job, as a client would do it: start the service, edit the sample photo through its API, show the result.

Only the standard library speaks to the server here, so that this reads as an example of the API.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CHECKPOINT = str(ROOT / "build" / "tiny")
PHOTO = ROOT / "samples" / "mug.jpg"
RESULT = ROOT / "build" / "demo" / "result.png"
PROMPT = "Turn the camera to a top-down view."
DARKROOM = str(Path(sys.executable).parent / "darkroom")


def main() -> None:
    if not Path(CHECKPOINT).exists():
        subprocess.run([DARKROOM, "checkpoints", "make", "--size", "tiny", CHECKPOINT], check=True)
    with tempfile.TemporaryDirectory() as data:
        command = [DARKROOM, "serve", "--checkpoint", CHECKPOINT, "--port", "0", "--data", data]
        log = ROOT / "build" / "demo" / "serve.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"Starting the service (its log: {log.relative_to(ROOT)}) …", flush=True)
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
            ) as server,
        ):
            try:
                url, key = greeting(server)
                print(f"Ready on {url}; sending {PHOTO.relative_to(ROOT)}: “{PROMPT}”", flush=True)
                show(edit(url, key))
            finally:
                server.terminate()
        print(f"The service has stopped (exit code {server.returncode}).")
    sys.exit(server.returncode)


def greeting(server: subprocess.Popen[str]) -> tuple[str, str]:
    """The address and the first key, from what the server prints when it is ready."""
    url = key = ""
    for line in server.stdout or ():
        if line.startswith("Darkroom is ready on "):
            url = line.split()[-1]
        if line.startswith("API key: "):
            key = line.split()[-1]
        if url and key:
            return url, key
    sys.exit("the service did not start; its log says why: build/demo/serve.log")


def call(url: str, key: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
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


def edit(url: str, key: str) -> dict[str, Any]:
    """Submit, poll until it has ended, fetch the picture."""
    photo = "data:image/jpeg;base64," + b64encode(PHOTO.read_bytes()).decode()
    body = {"prompt": PROMPT, "image": photo, "image_2": None, "image_3": None, "seed": 7, "image_format": "png"}
    submitted = call(f"{url}/v2/qwen-image-edit-plus", key, body)
    while (status := call(submitted["status_url"], key))["status"] in ("QUEUED", "PROCESSING"):
        print(f"  {status['status']}", flush=True)
        time.sleep(0.5)
    result = call(submitted["response_url"], key)
    with urllib.request.urlopen(result["output"], timeout=30) as picture, RESULT.open("wb") as file:
        shutil.copyfileobj(picture, file)
    return result


def show(result: dict[str, Any]) -> None:
    for stage, seconds in result["timings"].items():
        print(f"  {stage:<10} {seconds:8.3f} s")
    metrics = result["metrics"]
    print(f"Edited in {metrics['inference_time']} s (waited {metrics['queue_time']} s): {RESULT.relative_to(ROOT)}")
    print("The tiny checkpoint has random weights: the whole way is real, the picture is noise. See README.md.")


if __name__ == "__main__":
    main()
