"""docs/api.md, run as it stands: every command, in order, against a real service."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darkroom.settings import Settings
from serving import PATIENCE_S, Node, serving

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ID = "ID=…"
BASE = "http://127.0.0.1:8000"
"""Where the page says that the service is."""

TIMES = {
    *("inference_time", "queue_time", "total_time", "infer_time", "latency_ms"),
    *("inference", "fetch", "prepare", "encode", "denoise", "decode", "write"),
}
"""Numbers that are other ones every time."""


def steps(block: str) -> list[tuple[str, str]]:
    """Each command of a console block with what it answers."""
    return [
        (command, answer.strip())
        for command, answer in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


STEPS = [step for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")) for step in steps(block)]


class Reader:
    """Who follows the page: a shell in a folder with the samples, and the id of the latest request."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.variables = {"DARKROOM": node.url, "KEY": node.new_key("reader")}
        self.submitted = ""

    def does(self, command: str) -> str:
        if command == ID:
            self.variables["ID"] = self.submitted
            return ""
        if "$ID" in command and "DELETE" not in command:
            self.waits()
        shell = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]} | self.variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        if found := re.search(r'"request_id":"(\w+)","status":"QUEUED"', shell.stdout):
            self.submitted = found[1]
        return shell.stdout.replace("\r\n", "\n").strip()

    def waits(self) -> None:
        """Until the request has ended, as a reader would by asking again."""
        with self.node.client(self.variables["KEY"]) as client:
            while client.get(f"/v2/requests/{self.submitted}/status").json()["status"] in ("QUEUED", "PROCESSING"):
                pass


@pytest.fixture(scope="module")
def reader(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "samples", folder / "samples")
    settings = Settings(data=folder / "data", checkpoint=str(tiny_checkpoint), device="cpu", dtype="float32")
    with serving(settings) as node:
        yield Reader(node, folder)


def parsed(answer: str) -> tuple[Any, str]:
    """The answer's JSON, if it begins with any, and the text after it."""
    if not answer.startswith("{"):
        return None, answer
    value, end = json.JSONDecoder().raw_decode(answer)
    return value, answer[end:].strip()


def assert_like(told: Any, got: Any, where: str = "") -> None:
    """What was got is what was told, but for what stands for … and for times."""
    if isinstance(told, dict) and isinstance(got, dict):
        assert list(told) == list(got), where
        for name, value in told.items():
            if name in TIMES:
                assert isinstance(got[name], float | int), f"{where}.{name}"
            else:
                assert_like(value, got[name], f"{where}.{name}")
    elif isinstance(told, list) and isinstance(got, list):
        assert len(told) == len(got), where
        for number, (one, other) in enumerate(zip(told, got, strict=True)):
            assert_like(one, other, f"{where}[{number}]")
    elif isinstance(told, str) and isinstance(got, str):
        assert re.fullmatch(".+".join(map(re.escape, told.split("…"))), got), f"{where}: {got!r} is not {told!r}"
    else:
        assert told == got, where


def test_the_page(reader: Reader) -> None:
    """Every call on it is answered as it says."""
    assert len(STEPS) > 10
    for command, said in STEPS:
        told, got = said.replace(BASE, reader.node.url), reader.does(command)
        (told_json, told_text), (got_json, got_text) = parsed(told), parsed(got)
        assert_like(told_json, got_json, command)
        assert_like(told_text.splitlines(), got_text.splitlines(), command)
