"""A real browser without a window: Debian's chromium, spoken to in the DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--no-first-run", "--disable-extensions", "--disable-component-update", "--disable-background-networking"),
    *("--remote-debugging-pipe", "--force-device-scale-factor=1", "--font-render-hinting=none"),
)
WIDE = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 \
 && !e.closest('.scroll') && !e.closest('svg')).map(e => e.tagName + '.' + e.className)"


def needed() -> None:
    """Skip where there is no browser; CI has one."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")


@dataclass(frozen=True)
class Seen:
    """What a browser did with one page."""

    errors: list[str]
    """Of the console: exceptions, what the security policy stopped, `console.error`."""
    requests: list[str]
    """Addresses asked for, besides the page's own."""
    wide: list[str]
    """Elements that stick out to the right of the window and cannot be scrolled."""
    screenshot: bytes
    """PNG of the whole page."""
    values: list[Any]
    """Of the expressions that were asked for."""


class Browser:
    """`with Browser() as browser:`; one process, one page after another."""

    def __enter__(self) -> Browser:
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # its helpers end a moment later
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # Chromium reads commands from descriptor 3 and writes to 4, which the shell ties to the pipes.
        shell = ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash"]
        command = [*shell, CHROMIUM, *FLAGS, f"--user-data-dir={self._home.name}"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdout=quiet, stderr=quiet, pass_fds=(to_read, to_write), start_new_session=True
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._sent, self._events = b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: Any) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._home.cleanup()

    def look(self, page: Path, width: int, dark: bool = False, expressions: tuple[str, ...] = ()) -> Seen:
        """Open the file in a window so wide, and look at all of it."""
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._events.clear()
        address = page.resolve().as_uri()
        self.call("Page.navigate", url=address)
        self._wait("Page.loadEventFired")
        values = [self._value(expression) for expression in (WIDE, *expressions)]
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        asked = [event["params"]["request"]["url"] for event in self._of("Network.requestWillBeSent")]
        requests = [url for url in asked if url != address and not url.startswith("data:")]
        return Seen(self._errors(), requests, values[0], base64.b64decode(shot["data"]), values[1:])

    def _value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _errors(self) -> list[str]:
        thrown = [event["params"]["exceptionDetails"]["text"] for event in self._of("Runtime.exceptionThrown")]
        calls = [event["params"] for event in self._of("Runtime.consoleAPICalled")]
        said = [json.dumps(call["args"]) for call in calls if call["type"] in ("error", "warning", "assert")]
        entries = [event["params"]["entry"] for event in self._of("Log.entryAdded")]
        return thrown + said + [entry["text"] for entry in entries if entry["level"] in ("error", "warning")]

    def _of(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self._events if event.get("method") == method]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command's result."""
        self._sent += 1
        session = getattr(self, "_session", None)
        message = {"id": self._sent, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def _wait(self, method: str) -> None:
        while not self._of(method):
            self._next()

    def _next(self, seconds: float = 60.0) -> dict[str, Any]:
        until = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._read, 1 << 20) if ready else b""
            assert more, "the browser says nothing, or has ended"
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self._events.append(message)
        return message
