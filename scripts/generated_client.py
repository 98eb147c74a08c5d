"""Makes a client from the served document with a common generator, compiles it, and edits a picture with it.

The generator (openapi-python-client, from the package index) gets an environment of its own: it wants another typer
than Darkroom does. Prints what was made, or fails.
"""

import json
import os
import subprocess
import tempfile
import urllib.request
import venv
from pathlib import Path

from demo import serving

GENERATOR = ("openapi-python-client==0.29.1", "ruff")

CONFIG = """\
content_type_overrides:
  image/jpeg: application/octet-stream
  image/png: application/octet-stream
  image/webp: application/octet-stream
"""
"""The generator knows only octets for octets."""

PROGRAM = """\
import sys, time, urllib.request
from made import AuthenticatedClient
from made.api.requests import get_result, get_status
from made.api.v1 import edit_qwen_image_edit_plus
from made.api.v2 import submit_qwen_image_edit_plus
from made.models import Pending, QwenImageEditPlusRequest, Result

url, key, picture = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key, prefix="", auth_header_name="x-api-key", timeout=300)
request = QwenImageEditPlusRequest(image=picture, prompt="Make it night.", seed=7, num_inference_steps=2)

submitted = submit_qwen_image_edit_plus.sync(client=client, body=request, idempotency_key="one")
while isinstance(get_status.sync(submitted.request_id, client=client), Pending):
    time.sleep(0.2)
result = get_result.sync(submitted.request_id, client=client)
assert isinstance(result, Result), result
image = result.images[0]
data = urllib.request.urlopen(image.url).read()
assert len(data) == int(image.file_size)
print(f"v2: {image.content_type}, {image.width} x {image.height} px, seed {result.seed}, cost {result.metrics.cost}")

picture = edit_qwen_image_edit_plus.sync(client=client, body=request, idempotency_key="one")
assert picture.payload.read() == data
print(f"v1: the same {len(data)} bytes")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving({"DARKROOM_DATA": str(folder / "data")}, folder / "serve.log") as (url, key):
            check(folder, url, key)


def check(folder: Path, url: str, key: str) -> None:
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    bin_folder = environment / "bin"
    python = str(bin_folder / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *GENERATOR], check=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    generate = [str(bin_folder / "openapi-python-client"), "generate", "--url", f"{url}/openapi.json", "--meta", "none"]
    path = {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [*generate, "--config", "config.yaml", "--output-path", "made", "--fail-on-warning"],
        check=True,
        cwd=folder,
        env=os.environ | path,
    )
    subprocess.run([python, "-m", "compileall", "-q", "made"], check=True, cwd=folder)
    print(f"{sum(1 for _ in (folder / 'made').rglob('*.py'))} modules generated, without a warning, and compiled")
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    subprocess.run([python, "program.py", url, key, example(url)], check=True, cwd=folder)


def example(url: str) -> str:
    """The picture that the document itself has as an example."""
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        document = json.load(answer)
    body = document["paths"]["/v2/qwen-image-edit-plus"]["post"]["requestBody"]["content"]["application/json"]
    return str(body["examples"]["least"]["value"]["image"])


if __name__ == "__main__":
    main()
