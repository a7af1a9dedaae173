"""A headless Chromium, driven through DevTools over a pipe: no port, no driver, no network."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-default-apps --metrics-recording-only "
    "--mute-audio --hide-scrollbars --remote-debugging-pipe --proxy-server=127.0.0.1:9"
).split()

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One tab, with the network off; whatever it says on its console and asks of a network is noted."""

    def __init__(self, width: int = 1280, height: int = 800) -> None:
        assert PROGRAM is not None
        self.folder = tempfile.mkdtemp(prefix="explorer-")
        theirs_in, self.out = os.pipe()
        self.come, theirs_out = os.pipe()
        command = " ".join([PROGRAM, *FLAGS, f"--user-data-dir={self.folder}", f"--window-size={width},{height}"])
        self.process = subprocess.Popen(
            ["bash", "-c", f"exec 3<&{theirs_in} 4>&{theirs_out}; exec {command} about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.number, self.session = b"", 0, None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.answers: dict[int, dict[str, Any]] = {}
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(each for each in targets if each["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol; gives what it returned."""
        self.number += 1
        number, message = self.number, {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 60
        while number not in self.answers:
            self._listen(until - time.monotonic())
        answer = self.answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _listen(self, seconds: float) -> None:
        ready, _, _ = select.select([self.come], [], [], max(0.0, seconds))
        assert ready, "the browser does not answer"
        data = os.read(self.come, 1 << 20)
        assert data, "the browser is gone"
        *messages, self.rest = (self.rest + data).split(b"\0")
        for text in messages:
            message = json.loads(text)
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(str(details.get("exception", {}).get("description", details["text"])))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(each.get("value", each.get("description"))) for each in params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path: Path) -> float:
        """Opens a file; gives the seconds until the page has drawn itself."""
        self.ask("Page.navigate", url=path.as_uri())
        self.wait("!!document.documentElement?.dataset.ready")
        return float(self.run("+document.documentElement.dataset.ready")) / 1000

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 30) -> None:
        """Waits until an expression is true."""
        until = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < until, f"still not true: {script}\n{self.complaints}"
            time.sleep(0.02)

    def click(self, selector: str, shift: bool = False) -> None:
        """Presses the mouse in the middle of an element."""
        self.wait(f"!!document.querySelector({selector!r})")
        x, y = self.run(f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'nearest'}});"
                        " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")  # fmt: skip
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1, modifiers=8 if shift else 0)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One event of the mouse."""
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def key(self, key: str) -> None:
        """Presses a key."""
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 and kind == "keyDown" else ""
            )

    def picture(self, path: Path) -> None:
        """Writes what is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Ends the browser and forgets its folder."""
        try:
            self.session = None
            self.ask("Browser.close")
        except (AssertionError, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.come)
        shutil.rmtree(self.folder, ignore_errors=True)
