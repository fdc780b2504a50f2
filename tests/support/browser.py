"""A headless Chromium that opens pages of files, by the DevTools protocol: what it shows, says and asks for."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from coeval.settings import Settings

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
MISSING = "no Chromium: run infra/browser.sh, set CHROMIUM to one, or put one on the PATH"
_SECONDS = 30.0


def find_chromium() -> str | None:
    """The Chromium that $CHROMIUM names, the first on the PATH, or the one that infra/browser.sh fetched."""
    fetched = str(Settings().cache.expanduser() / "browser" / "chromium")
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, (*NAMES, fetched))), None)


@dataclass
class Browser:
    """A page in a browser; `said` is what came to its console, `asked` the addresses that it loaded."""

    socket: ClientConnection
    session: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    _number: int = 0

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the page for something, and await the answer."""
        self._number += 1
        mine = self._number
        self.socket.send(json.dumps({"id": mine, "sessionId": self.session, "method": method, "params": params}))
        while True:
            message = self._next()
            if message.get("id") == mine:
                assert "error" not in message, message["error"]
                return message["result"]  # type: ignore[no-any-return]

    def open(self, path: Path, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Load a file into a window of a size, by a light or dark scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.resize(width, height)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def resize(self, width: int, height: int) -> None:
        """Give the window a size in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def value(self, script: str) -> Any:
        """What an expression gives in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go; `code` is its virtual key code."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = "\r" if key == "Enter" else ""
            if kind != "char" or text:
                self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Take a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self, path: Path) -> None:
        """Print the page as a PDF, as its own style wants it."""
        printed = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        path.write_bytes(base64.b64decode(printed["data"]))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(_SECONDS))
        params = message.get("params", {})
        match message.get("method"):
            case "Log.entryAdded":
                self.said.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.said.append(json.dumps(params))
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
        return message


@contextmanager
def browsing(program: str, home: Path) -> Iterator[Browser]:
    """A browser of its own, until the block ends; what it keeps is in `home`."""
    command = [program, "--headless", "--remote-debugging-port=0", f"--user-data-dir={home}", "--no-first-run"]
    # Pages are made by the test itself, and root has no sandbox.
    command += ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stderr)))[0]
        with connect(address, max_size=None) as socket:
            browser = Browser(socket, "")
            page = _ask(socket, "Target.createTarget", url="about:blank")["targetId"]
            browser.session = _ask(socket, "Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(f"{domain}.enable")
            yield browser
    finally:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def _ask(socket: ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": 0, "method": method, "params": params}))
    while True:
        message = json.loads(socket.recv(_SECONDS))
        if message.get("id") == 0:
            return message["result"]  # type: ignore[no-any-return]
