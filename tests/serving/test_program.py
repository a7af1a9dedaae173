"""The program itself: it serves, says where, and ends in peace."""

import os
import signal
import subprocess
import sys
import threading

from lit_transformer.data.tokenizers import ByteLevelBPE
from tests.cli.test_generate import save

from .conftest import call, complete


def test_it_serves_until_it_is_told_to_stop(tmp_path):
    checkpoint = save(tmp_path / "tiny.ckpt", ByteLevelBPE(300))
    argv = [sys.executable, "-m", "lit_transformer", "serve", "--checkpoint", str(checkpoint), "--port", "0"]
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            said = process.stderr.readline()
            assert said.startswith("serving tiny at http://127.0.0.1:"), said
            address = said.split()[3]
            assert complete(address, prompt="the", max_tokens=5)["model"] == "tiny"
            assert "<title>lit_transformer</title>" in call(address, "GET", "/")[2]
            answers = []
            body = {"prompt": "the", "max_tokens": 60}
            client = threading.Thread(target=lambda: answers.append(call(address, "POST", "/v1/completions", body)))
            client.start()
            while call(address, "GET", "/health")[2]["active"] == 0 and client.is_alive():
                pass
            process.send_signal(signal.SIGTERM)
            client.join()
            assert answers[0][0] == 200  # what was under way has ended first
            assert process.wait(timeout=60) == 0 and process.stderr.read() == ""
        finally:
            process.kill()
