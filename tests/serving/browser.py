"""Chromium without a window, driven by its DevTools protocol over a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

OFFLINE = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--proxy-server=direct://"]


class Browser:
    """One page in a browser of its own; use it with ``with``."""

    def __init__(self, folder, dark=False, size=(900, 900)):
        self.folder, self.dark, self.size = folder, dark, size
        self.number, self.session = 0, None
        self.said = []
        self.requests = []

    def __enter__(self):
        there, self.writing = os.pipe()
        self.reading, back = os.pipe()
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
                 f"--window-size={self.size[0]},{self.size[1]}", f"--user-data-dir={self.folder}",
                 "--remote-debugging-pipe", *OFFLINE, "about:blank"]  # fmt: skip
        shell = f'exec "$@" 3<&{there} 4>&{back}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *words], pass_fds=(there, back), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        self.held = b""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        theme = "dark" if self.dark else "light"
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        return self

    def __exit__(self, *rest):
        try:
            self.session = None
            self("Browser.close")
            self.process.wait(timeout=10)
        except Exception:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        os.close(self.writing)
        os.close(self.reading)

    def __call__(self, method, seconds=60, **params):
        """Sends a command and waits for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while True:
            answer = self._message(end)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _message(self, end):
        while b"\0" not in self.held:
            assert select.select([self.reading], [], [], max(0.0, end - time.monotonic()))[0], "the browser is silent"
            data = os.read(self.reading, 1 << 16)
            assert data, "the browser has ended"
            self.held += data
        message, _, self.held = self.held.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"])
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.said.append(params["entry"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, address):
        """Goes to an address."""
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """The value of an expression in the page."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script, seconds=30):
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)

    def key(self, key, code=0, control=False):
        """Presses a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, modifiers=2 if control else 0
            )

    def type(self, text):
        """Types into what has the focus."""
        self("Input.insertText", text=text)

    def picture(self, path):
        """Saves what is seen."""
        data = self("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
