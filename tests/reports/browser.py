"""A real headless browser, spoken to over its debugging pipe: opens pages, runs scripts, takes pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
# the browser reads commands from file 3 and answers on file 4
_LAUNCH = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Page:
    """One page: ``errors`` of scripts and console, ``requests`` it made."""

    def __init__(self, commands: int, answers: int) -> None:
        self._out, self._in = commands, answers
        self._rest, self._number, self._session = b"", 0, ""
        self._loaded = False
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            if not part:
                raise RuntimeError("the browser is gone")
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:400])
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a file and wait until it has loaded."""
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        while not self._loaded:
            self._read()

    def run(self, script: str) -> Any:
        """The body of an async function; what it returns."""
        expression = f"(async () => {{ {script} }})()"
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:600])
        return found["result"].get("value")

    def size(self, width: int, height: int) -> None:
        """Size of the window in pixels, as narrow as a telephone's."""
        mobile = {"deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **mobile)

    def picture(self, path: Path, wait: float = 0.5) -> Path:
        """What is seen, as a PNG."""
        until = time.monotonic() + wait
        while time.monotonic() < until:
            self.run("await new Promise((go) => setTimeout(go, 50));")
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def browse() -> Iterator[Page]:
    """A browser of its own, gone afterwards."""
    assert CHROMIUM is not None
    # numbers above 4, so that neither end is overwritten when the browser's own two files are put in place
    theirs_in, ours_out, ours_in, theirs_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (*os.pipe(), *os.pipe()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        args = [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), CHROMIUM, *FLAGS]
        process = subprocess.Popen(
            [*args, f"--user-data-dir={folder}"], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL
        )
        try:
            os.close(theirs_in)
            os.close(theirs_out)
            yield Page(ours_out, ours_in)
        finally:
            os.close(ours_out)
            os.close(ours_in)
            process.terminate()
            process.wait(timeout=20)
