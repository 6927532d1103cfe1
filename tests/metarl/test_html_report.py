"""The report: what is on the page, and that a browser shows it offline, on a phone too."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WAIT_S = 60.0


class Browser:
    """Headless Chromium, driven by its DevTools protocol over two pipes: JSON, each message ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        command, reply = os.pipe(), os.pipe()
        # The browser reads its file descriptor 3 and writes 4; ours are kept clear of the two.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (command[0], reply[1])]

        def connect() -> None:
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        for end in (*theirs, command[0], reply[1]):
            os.close(end)
        self._write, self._read = command[1], reply[0]
        os.set_blocking(self._read, False)
        self._buffer, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self("Browser.close")
        self._process.kill()
        self._process.wait()
        for end in (self._write, self._read):
            os.close(end)

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda got: got.get("id") == message["id"])
        assert "error" not in answer, answer
        return answer["result"]

    def _until(self, wanted) -> dict[str, Any]:
        """The first message that is wanted; events before it are kept."""
        deadline = time.monotonic() + WAIT_S
        while True:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(text)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            assert time.monotonic() < deadline and self._process.poll() is None, "Chromium does not answer"
            try:
                self._buffer += os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)

    def open(self, page: Path, width: int, height: int = 844, dark: bool = False) -> None:
        """Load a page in a new tab of that width."""
        self._session = ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events = []
        self("Page.navigate", url=page.resolve().as_uri())
        if not self.named("Page.loadEventFired"):
            self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Parameters of the events of these names since the page was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def evaluate(self, script: str) -> Any:
        """What an expression gives; promises are awaited."""
        result = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium here (Debian, Ubuntu: apt-get install chromium): the page is not looked at")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(program, Path(profile))
        yield opened
        opened.close()
