"""A tiny random model behind a server in this process, and clients of the standard library."""

import http.client
import json
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlparse

import pytest
import torch

from lit_transformer.data.tokenizers import ByteLevelBPE
from lit_transformer.dims import Dims
from lit_transformer.generation import Model
from lit_transformer.networks import DecoderOnly
from lit_transformer.serving import Limits

if find_spec("fastapi") is None or find_spec("uvicorn") is None:
    collect_ignore_glob = ["test_*.py"]  # without the extra `serve` there is nothing to test
else:
    from lit_transformer.serving.server import Place, serving

TEXT = "the quick brown fox jumps over the lazy dog.\nPack my box: five dozen liquor jugs!\nnaïve café — 你好\n"
LIMITS = Limits(slots=8, waiting=64, context=512, max_new_tokens=400, rows=8, seconds=60)


def tiny(seed=0, max_len=512):
    """A model whose most probable token is clear."""
    tokenizer = ByteLevelBPE(300).build(iter([TEXT]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DecoderOnly(tokenizer.vocabulary(max_len), Dims(d_model=32, n_layers=2, n_heads=4))
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(6)
    return Model(network.eval(), tokenizer)


@pytest.fixture(scope="session")
def model():
    return tiny()


@pytest.fixture(scope="session")
def address(model):
    with serving(model, "tiny", LIMITS, Place(port=0)) as address:
        yield address


@contextmanager
def connection(address, timeout=60):
    where = urlparse(address)
    found = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        yield found
    finally:
        found.close()


def call(address, method, path, body=None, **headers):
    """Status, headers and content of an answer."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    with connection(address) as each:
        each.request(method, path, body, headers)
        answer = each.getresponse()
        data = answer.read()
        kind = answer.getheader("content-type", "")
        return answer.status, dict(answer.getheaders()), json.loads(data) if "json" in kind else data.decode()


def complete(address, **body):
    """The answer to a request for completions, which must be good."""
    status, _, answer = call(address, "POST", "/v1/completions", {"temperature": 0, **body})
    assert status == 200, answer
    return answer


def events(text):
    """The events of a stream, whose last one says that it is over."""
    said = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert said[-1] == "[DONE]"
    return [json.loads(each) for each in said[:-1]]
