"""A real `darkroom serve` on loopback, to be killed."""

import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image

DARKROOM = Path(sys.executable).parent / "darkroom"
CRASH = Path(__file__).parent / "crash"
DEADLINE_S = 90


def photo(size=(96, 64)) -> str:
    """A small picture as a data URL."""
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


class Node:
    def __init__(self, folder: Path, checkpoint: Path, **settings: str) -> None:
        self.data = folder / "data"
        self.plan = folder / "plan"
        self.key = ""
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self._log = (folder / "serve.log").open("a")
        self._env = os.environ | {
            "PYTHONPATH": str(CRASH),
            "CRASH_PLAN": str(self.plan),
            "DARKROOM_DATA": str(self.data),
            "DARKROOM_CHECKPOINT": str(checkpoint),
            "DARKROOM_LEASE_S": "2",
            "DARKROOM_DRAIN_S": "5",
            **settings,
        }

    def start(self) -> None:
        """Returns when the service can be asked; its engine may still be loading."""
        self.process = subprocess.Popen(
            [DARKROOM, "serve", "--port", "0"], env=self._env, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process, ready))
        self._reader.start()
        assert ready.wait(DEADLINE_S), "the service did not get ready"
        assert self.process.poll() is None, "the service has ended"

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        with process.stdout:
            for line in process.stdout:
                if line.startswith("API key: "):
                    self.key = line.split()[-1]
                if line.startswith("Darkroom is ready on "):
                    self.url = line.split()[-1]
                    ready.set()
        ready.set()

    def crash_at(self, point: str, *, signal: str = "KILL") -> None:
        """Have the process of `point` signal itself, or hang, when it gets there; see crash/sitecustomize.py."""
        draft = self.plan.with_suffix(".draft")
        draft.write_text(f"{signal} {point}")
        draft.rename(self.plan)

    def wait_crashed(self) -> None:
        """Until what was planned is done."""
        give_up_at = time.monotonic() + DEADLINE_S
        while self.plan.exists():
            assert time.monotonic() < give_up_at, f"never reached: {self.plan.read_text()}"
            time.sleep(0.005)

    def worker_pid(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def wait_killed(self) -> None:
        assert self.process.wait(DEADLINE_S) == -9
        self._reader.join()
        assert not self.plan.exists(), "it died of something else"
        self.process = None

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(DEADLINE_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self._reader.join()

    def close(self) -> None:
        self.kill()
        self._log.close()

    def post(self, path: str, **params) -> httpx.Response:
        body = {"prompt": "make the wall blue", "image": photo(), "seed": 5, "image_format": "png"} | params
        return httpx.post(self.url + path, json=body, headers={"x-api-key": self.key}, timeout=DEADLINE_S)

    def get(self, url: str) -> httpx.Response:
        return httpx.get(url if url.startswith("http") else self.url + url, headers={"x-api-key": self.key}, timeout=30)

    def submit(self, **params) -> str:
        answer = self.post("/v2/qwen-image-edit-plus", **params)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_id"]

    def ended(self, request_id: str) -> dict:
        """The final answer, once there is one."""
        give_up_at = time.monotonic() + DEADLINE_S
        while time.monotonic() < give_up_at:
            body = self.get(f"/v2/requests/{request_id}").json()
            if body["status"] in ("COMPLETED", "FAILED"):
                return body
            time.sleep(0.05)
        raise AssertionError(f"{request_id} has not ended: {body}")

    def pixels(self, body: dict) -> bytes:
        return Image.open(BytesIO(self.get(body["output"]).content)).tobytes()
