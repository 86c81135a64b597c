"""A headless Chromium, driven over its debugging pipe: no library, no port, no network."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --mute-audio
--remote-debugging-pipe
--disable-extensions --process-per-site --disable-site-isolation-trials
--disable-features=SpareRendererForSitePerProcess""".split()  # the last four: fewer processes, which start slowly
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "End": 35, "ArrowUp": 38, "ArrowDown": 40}
PIPES = """
import os, sys
for given, name in zip(sys.argv[1:3], (103, 104)):
    os.dup2(int(given), name)
os.dup2(103, 3)
os.dup2(104, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""  # Chromium reads its third file, and writes to its fourth


def executable() -> str | None:
    """Where Chromium is on this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser with one page at a time. Each message it sends is answered within *patience* seconds."""

    def __init__(self, patience: float = 60.0) -> None:
        self._patience = patience
        self._profile = tempfile.mkdtemp(prefix="flowdsl-chromium-")
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        profile = f"--user-data-dir={self._profile}"
        command = [executable() or "chromium", *FLAGS, OFFLINE, profile, "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PIPES, str(to_browser), str(from_browser), *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: deque[dict[str, Any]] = deque(maxlen=5000)
        self._session = ""
        self._target = ""
        self.new_page()

    # Messages ------------------------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and give its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + self._patience
        while True:
            answer = self._receive(until)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser is gone")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    # Pages -----------------------------------------------------------------------------------------------------

    def new_page(
        self, width: int = 1280, height: int = 900, *, dark: bool = False, script: bool = True
    ) -> None:
        """A fresh page, without cookies. It is in the one profile: another one takes longer than most tests."""
        self._session = ""
        if self._target:
            self.call("Target.closeTarget", targetId=self._target)
        made = self.call("Target.createTarget", url="about:blank")
        self._target = made["targetId"]
        attached = self.call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Network.clearBrowserCookies")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        if not script:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.events.clear()

    def resize(self, width: int, height: int) -> None:
        """Another size of the window."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def go(self, url: str) -> None:
        """Open *url* and wait until it is loaded."""
        self.run("window.__old = true")
        self.call("Page.navigate", url=url)
        self.until("!window.__old && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, script: str, patience: float | None = None) -> None:
        """Wait until a JavaScript expression is true."""
        last = time.monotonic() + (patience or self._patience)
        while True:
            try:
                found = self.run(
                    f"(() => {{ try {{ return Boolean({script}) }} catch {{ return false }} }})()"
                )
            except RuntimeError as error:  # the page is being replaced
                if "context" not in str(error).lower():
                    raise
                found = None
            if found:
                return
            if time.monotonic() > last:
                raise TimeoutError(f"never true: {script}")
            time.sleep(0.03)  # not by a timer of the page: without script it has none

    def press(self, key: str, text: str = "") -> None:
        """Press a key."""
        names = {" ": "Space", "/": "Slash", "+": "Equal", "-": "Minus", "0": "Digit0"}
        what = {"key": key, "code": names.get(key, key), "text": text or (key if len(key) == 1 else "")}
        if key == "Enter":
            what |= {"text": "\r"}
        if key in CODES:
            what |= {"windowsVirtualKeyCode": CODES[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown" if what["text"] else "rawKeyDown", **what)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=what["code"])

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the middle of the first element of this kind, as a person would."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save what is to be seen as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def problems(self) -> list[str]:
        """What the browser complained about: errors of scripts, violations of the policy, failed requests."""
        self.run("1")
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """The URLs that the page has asked for."""
        self.run("1")
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        """End the browser."""
        try:
            self._session = ""
            self.call("Browser.close")
        except (RuntimeError, TimeoutError, OSError):
            self._process.kill()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)
