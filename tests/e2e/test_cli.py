"""The command as people run it: real processes on the tiny checkpoint."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

DARKROOM = str(Path(sys.executable).parent / "darkroom")
PATIENCE_S = 120
LONG = 100
"""Steps that take the tiny checkpoint seconds: time to interrupt them."""


def environment(**settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "SEGMIND_"))}
    return kept | {"COLUMNS": "200"} | {f"DARKROOM_{name.upper()}": str(value) for name, value in settings.items()}


def darkroom(*words: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DARKROOM, *map(str, words)],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


class Served:
    """A `darkroom serve`. said: the lines of its standard output; url and key as they tell."""

    def __init__(self, *words: object, log: Path, **settings: object) -> None:
        self.log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [DARKROOM, "serve", "--port", "0", *map(str, words)],
                env=environment(**settings),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        self.said: list[str] = []
        self._heard = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                with self._heard:
                    self.said.append(line.rstrip("\n"))
                    self._heard.notify_all()
        with self._heard:
            self.said.append("")
            self._heard.notify_all()

    def after(self, beginning: str) -> str | None:
        return next((line.removeprefix(beginning) for line in self.said if line.startswith(beginning)), None)

    def wait_ready(self) -> "Served":
        with self._heard:
            assert self._heard.wait_for(lambda: self.url or "" in self.said, PATIENCE_S), self.log.read_text()
        assert self.url, self.log.read_text()
        return self

    @property
    def url(self) -> str | None:
        return self.after("Darkroom is ready on ")

    @property
    def key(self) -> str | None:
        return self.after("API key: ")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        self._listener.join(PATIENCE_S)

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Signals the whole group, as a terminal's Ctrl-C does, or the process alone; its exit status."""
        if sig == signal.SIGINT:
            os.killpg(self.process.pid, sig)
        else:
            self.process.send_signal(sig)
        return self.process.wait(PATIENCE_S)

    def call(self, method: str, path: str, key: str, **kwargs) -> httpx.Response:
        return httpx.request(method, self.url + path, headers={"x-api-key": key}, timeout=PATIENCE_S, **kwargs)


@contextmanager
def serving(*words: object, log: Path, **settings: object) -> Iterator[Served]:
    served = Served(*words, log=log, **settings)
    try:
        yield served
    finally:
        served.close()


def poll_until(condition, what: str):
    """The first true answer of `condition`, which another process decides about."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        if answer := condition():
            return answer
        time.sleep(0.05)
    pytest.fail(f"never: {what}")


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where the shared server has its data."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def slow_checkpoint(tiny_checkpoint, tmp_path_factory) -> Path:
    """The same at a size that takes seconds for many steps, to be stopped in the middle."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("slow") / "tiny")
    sizes = json.loads((folder / "darkroom.json").read_text())
    (folder / "darkroom.json").write_text(json.dumps({**sizes, "output_area_px": 640**2}))
    return folder


@pytest.fixture(scope="module")
def slow_server(slow_checkpoint, tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("slow-home")
    with serving("--checkpoint", slow_checkpoint, "--data", home / "data", log=home / "log") as served:
        yield served.wait_ready()
        assert served.stop(signal.SIGINT) == 0, served.log.read_text()


@pytest.fixture(scope="module")
def server(home, tiny_checkpoint) -> Iterator[Served]:
    with serving("--checkpoint", tiny_checkpoint, "--data", home / "data", log=home / "log") as served:
        yield served.wait_ready()
        assert served.stop(signal.SIGINT) == 0, served.log.read_text()


def test_serve_greets(server):
    """When ready it says its address and, on an empty ledger, a first key that works."""
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    assert re.fullmatch(r"dk_[\w-]{40}", server.key)
    assert httpx.get(f"{server.url}/health/ready", timeout=PATIENCE_S).status_code == 200
    assert server.call("GET", "/v1/get-user-credits", server.key).json()["credits"] == 1_000_000


def test_the_api_process_has_no_torch(server):
    """Only the worker process loads torch."""
    pid = server.process.pid
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    worker = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()


def test_a_taken_port_is_refused(server, tiny_checkpoint, tmp_path):
    """A second server on the same port stops at once, and says what to do."""
    port = server.url.rsplit(":", 1)[1]
    ran = darkroom("serve", "--checkpoint", tiny_checkpoint, "--data", tmp_path, "--port", port)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(rf"darkroom: can't listen on 127\.0\.0\.1 port {port}: .*--port.*\n", ran.stderr)


def test_keys_round_trip(server, home):
    """A key made beside the running server works at once, and no longer when revoked."""
    key = darkroom("keys", "create", "bot", "--credits", 7, data=home / "data").stdout.strip()
    assert server.call("GET", "/v1/get-user-credits", key).json()["credits"] == 7
    assert "bot " in darkroom("keys", "list", data=home / "data").stdout
    assert darkroom("keys", "revoke", "bot", data=home / "data").returncode == 0
    assert server.call("GET", "/v1/get-user-credits", key).status_code == 401


def test_edit_is_the_same_here_and_there(server, tiny_checkpoint, photo, tmp_path):
    """The same edit gives the same pixels in-process and by a server, and both say where it lies."""
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    words = ("edit", photo, "-p", "make it blue", "--seed", 11, "--steps", 2)
    ran = darkroom(*words, "-o", here, checkpoint=tiny_checkpoint, data=tmp_path / "data")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.match(rf"{re.escape(str(here))}  \d+ × \d+  [\d,]+ bytes  seed 11\n.*denoise \d+\.\d\d s", ran.stdout)
    ran = darkroom(*words, "-o", there, "--server", server.url, "--key", server.key)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.match(rf"{re.escape(str(there))}  \d+ × \d+  [\d,]+ bytes  seed 11\n.*denoise \d+\.\d\d s", ran.stdout)
    assert pixels(here) == pixels(there)
    with Image.open(here) as picture:
        assert picture.format == "PNG"


def test_the_suffix_gives_the_format(server, photo, tmp_path):
    """A .webp is WebP and a .jpg is JPEG, whatever the model's default is."""
    for name, expected in (("a.webp", "WEBP"), ("a.JPG", "JPEG")):
        words = ("edit", photo, photo, "-p", "x", "-o", tmp_path / name, "--steps", 1, "--quality", 80)
        ran = darkroom(*words, "--server", server.url, "--key", server.key)
        assert ran.returncode == 0, ran.stderr
        with Image.open(tmp_path / name) as picture:
            assert picture.format == expected


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--steps", 0), 2, "num_inference_steps"),
        (("--aspect-ratio", "7:1"), 2, "aspect_ratio"),
        (("--key", "dk_wrong"), 2, "API key is invalid"),
        (("-m", "qwen-image-edit-plus-relight"), 2, "darkroom loras fetch relight"),
        (("http://127.0.0.1:9/x.png",), 2, "image_2"),
        (("http://nowhere.invalid/x.png",), 1, "image_2"),
    ],
)
def test_edit_by_a_server_says_what_is_wrong(server, photo, tmp_path, words, code, said):
    """What the server refuses exits 2, a job that failed exits 1; one line says why, and there is no file."""
    out = tmp_path / "out.png"
    ran = darkroom("edit", photo, "-p", "x", "-o", out, "--server", server.url, "--key", server.key, *words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not out.exists()


def test_edit_here_says_what_is_wrong(photo, tmp_path):
    """A model that can't be loaded is said with the reason, and the job it was for is over."""
    out, data = tmp_path / "out.png", tmp_path / "data"
    ran = darkroom("edit", photo, "-p", "x", "-o", out, checkpoint=tmp_path / "nothing", data=data)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert str(tmp_path / "nothing") in ran.stderr
    assert "Traceback" not in ran.stderr
    listed = darkroom("keys", "list", data=data).stdout
    assert re.search(r"^local +1,000,000,000 +0 +0 ", listed, re.MULTILINE)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_edit_is_cancelled_on_the_server(slow_server, photo, tmp_path, sig):
    """Ctrl-C, or SIGTERM, cancels the command's job on the server and gives the price back."""
    before = slow_server.call("GET", "/v1/get-user-credits", slow_server.key).json()["credits"]
    command = [DARKROOM, "edit", photo, "-p", "x", "-o", tmp_path / "out.png", "--steps", str(LONG)]
    with subprocess.Popen(
        [*command, "--server", slow_server.url, "--key", slow_server.key],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as editing:
        poll_until(lambda: jobs(slow_server)["PROCESSING"], "the job runs")
        os.killpg(editing.pid, sig)
        assert editing.wait(PATIENCE_S) == 130
        assert editing.stderr.read() == "darkroom: cancelled\n"
    poll_until(lambda: not jobs(slow_server)["PROCESSING"], "the job ends")
    assert slow_server.call("GET", "/v1/get-user-credits", slow_server.key).json()["credits"] == before
    assert not (tmp_path / "out.png").exists()


def submit(server: Served, key: str, photo: Path, *, steps: int) -> str:
    """A job that is running when this returns."""
    data = {"prompt": "x", "num_inference_steps": steps}
    files = {"image": photo.read_bytes()}
    submitted = server.call("POST", "/v2/qwen-image-edit-plus", key, data=data, files=files)
    poll_until(lambda: jobs(server)["PROCESSING"], "the job runs")
    return submitted.json()["request_id"]


def jobs(server: Served) -> dict[str, int]:
    return httpx.get(f"{server.url}/health/ready", timeout=PATIENCE_S).json()["jobs"]


def test_ctrl_c_cancels_here(slow_checkpoint, photo, tmp_path):
    """Interrupting an edit in this process, worker and all, cancels its job and leaves nothing half done."""
    data = tmp_path / "data"
    command = [DARKROOM, "edit", photo, "-p", "x", "-o", tmp_path / "out.png", "--steps", str(LONG)]
    with subprocess.Popen(
        command,
        env=environment(checkpoint=slow_checkpoint, data=data, log_level="info"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as editing:
        for line in editing.stderr:
            if "claimed" in line:
                break
        os.killpg(editing.pid, signal.SIGINT)
        rest = editing.stderr.read()
        assert editing.wait(PATIENCE_S) == 130, rest
    assert "darkroom: cancelled\n" in rest
    assert "Traceback" not in rest
    listed = darkroom("keys", "list", data=data).stdout
    assert re.search(r"^local +1,000,000,000 +0 +0 ", listed, re.MULTILINE)
    assert not (tmp_path / "out.png").exists()


def test_a_stop_gives_the_running_job_back(slow_checkpoint, photo, tmp_path):
    """SIGTERM with a job running exits 0 in time; the next server, which prints no second key, ends that job. A second
    Ctrl-C cuts the draining short, and the job is given back all the same."""
    where = ("--checkpoint", slow_checkpoint, "--data", tmp_path / "data")
    with serving(*where, log=tmp_path / "first", drain_s=0) as first:
        key = first.wait_ready().key
        request_id = submit(first, key, photo, steps=30)
        assert first.stop() == 0, first.log.read_text()
    with serving(*where, log=tmp_path / "second") as second:
        second.wait_ready()
        assert second.key is None

        def ended():
            body = second.call("GET", f"/v2/requests/{request_id}", key).json()
            return body if body["status"] in ("COMPLETED", "FAILED") else None

        assert poll_until(ended, "the job ends")["status"] == "COMPLETED"
        submit(second, key, photo, steps=LONG)
        os.killpg(second.process.pid, signal.SIGINT)
        poll_until(lambda: "Ctrl-C again" in second.log.read_text(), "the first Ctrl-C is taken")
        assert second.stop(signal.SIGINT) == 130, second.log.read_text()
        poll_until(lambda: "given back" in second.log.read_text(), "the worker gives its job back")
    assert "Traceback" not in (tmp_path / "first").read_text() + (tmp_path / "second").read_text()


def test_a_stop_ends_the_streams(slow_checkpoint, photo, tmp_path):
    """SIGTERM while somebody listens to a running job's events exits 0 in time: the stream ends, the job waits on."""
    where = ("--checkpoint", slow_checkpoint, "--data", tmp_path / "data")
    with serving(*where, log=tmp_path / "log", drain_s=0) as served:
        key = served.wait_ready().key
        request_id = submit(served, key, photo, steps=LONG)
        events = f"{served.url}/v2/requests/{request_id}/events"
        with httpx.stream("GET", events, headers={"x-api-key": key}, timeout=PATIENCE_S) as stream:
            lines = stream.iter_lines()
            assert "PROCESSING" in next(line for line in lines if line.startswith("data: "))
            assert served.stop() == 0, served.log.read_text()
            assert not [line for line in lines if "COMPLETED" in line or "FAILED" in line]
    assert "Traceback" not in served.log.read_text()


def test_a_setup_that_fails_is_said_and_served(tmp_path):
    """Without its model the server says why, stays up for /health, and still stops cleanly."""
    (tmp_path / "nothing").mkdir()
    with serving("--checkpoint", tmp_path / "nothing", "--data", tmp_path / "data", log=tmp_path / "log") as served:
        said = poll_until(
            lambda: re.search(r"^darkroom: not ready: (.*)$", served.log.read_text(), re.MULTILINE), "the reason"
        )
        assert str(tmp_path / "nothing") in said[1]
        url = re.search(r"http://\S+/health/ready", served.log.read_text())[0]
        health = httpx.get(url, timeout=PATIENCE_S)
        assert (health.status_code, health.json()["status"]) == (503, "SETUP_FAILED")
        assert served.said == []
        assert served.stop() == 0


def test_doctor(tiny_checkpoint, tmp_path):
    """On a machine that can serve every line is ok."""
    ran = darkroom("doctor", checkpoint=tiny_checkpoint, data=tmp_path, port=0)
    assert ran.returncode == 0, ran.stdout
    names = [line.split()[0] for line in ran.stdout.splitlines()[1:8]]
    assert names == ["python", "torch", "device", "checkpoint", "memory", "disk", "port"]
    assert "memory plan for " in ran.stdout


def test_checkpoints_round_trip(tmp_path):
    """A checkpoint that was made can be looked into; a folder with something in it is left alone."""
    made = darkroom("checkpoints", "make", "--size", "tiny", tmp_path / "deep" / "tiny")
    assert (made.returncode, made.stdout) == (0, f"{tmp_path / 'deep' / 'tiny'}\n")
    again = darkroom("checkpoints", "make", "--size", "tiny", tmp_path / "deep" / "tiny")
    assert (again.returncode, again.stdout) == (2, "")
    assert "exists already" in again.stderr
    seen = darkroom("checkpoints", "inspect", tmp_path / "deep" / "tiny")
    assert seen.returncode == 0, seen.stderr
    for part in ("transformer", "text_encoder", "vae"):
        assert part in seen.stdout
    (tmp_path / "deep" / "tiny" / "vae" / "config.json").unlink()
    broken = darkroom("checkpoints", "inspect", tmp_path / "deep" / "tiny")
    assert broken.returncode != 0
    assert "vae/config.json" in broken.stdout + broken.stderr
