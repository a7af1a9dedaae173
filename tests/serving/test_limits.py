"""What the server refuses, and that it goes on afterwards."""

import http.client
import json
import socket
import threading
import time
from urllib.parse import urlparse

import pytest

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.generation import Greedy, LogitBias, Sampler, sampler_of
from lit_transformer.serving import Busy, Engine, Limits, Want
from lit_transformer.serving.server import Place, is_loopback, listening, serving

from .conftest import call, complete, connection, events, tiny

LONG = {"prompt": "the", "max_tokens": 400, "temperature": 0}


def health(address):
    return call(address, "GET", "/health")[2]


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


DEEP = b"[" * 100_000

WRONG = [
    (b"", 400, "Field required"),
    (b"{", 400, "not JSON"),
    (b"\xff\xfe{}", 400, ""),
    (DEEP, 400, ""),
    (b'{"prompt": ' + DEEP, 400, ""),
    (b"[]", 400, "valid dictionary"),
    (b"null", 400, ""),
    (b'"text"', 400, ""),
    (b'{"prompt": "a", "prompt2": 1}', 400, "prompt2: unknown field"),
    (b'{"prompt": "a\\ud800"}', 400, "the prompt is not UTF-8 text (character 1)"),
    (b'{"prompt": "a", "\\ud800": 1}', 400, "unicode"),
    (b'{"prompt": "a", "model": "\\ud800"}', 404, "there is no model"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "temperature"),
    (b'{"prompt": "a", "temperature": 1e999}', 400, "temperature"),
    (b'{"prompt": "a", "max_tokens": 1' + b"0" * 5000 + b"}", 400, ""),
    ({}, 400, "prompt: Field required"),
    ({"prompt": None}, 400, "prompt"),
    ({"prompt": 5}, 400, "prompt"),
    ({"prompt": []}, 400, "prompt: is an empty list"),
    ({"prompt": [[]]}, 400, "the prompt is empty"),
    ({"prompt": [1, "a"]}, 400, "prompt"),
    ({"prompt": [10**6]}, 400, "the prompt has token 1000000 and the vocabulary ends at"),
    ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": {"a": 1}}, 400, "prompt"),
    ({"prompt": "word " * 600}, 400, "the prompt has"),
    ({"prompt": "word " * 90, "max_tokens": 400}, 400, "together more than the 512"),
    ({"prompt": "a", "max_tokens": 401}, 400, "max_tokens: is 401, may be at most 400"),
    ({"prompt": "a", "max_tokens": "5"}, 400, "max_tokens: Input should be a valid integer"),
    ({"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
    ({"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ({"prompt": "a", "n": 9}, 400, "9 texts are asked for; a request may have 8"),
    ({"prompt": ["a"] * 5, "n": 2}, 400, "10 texts are asked for"),
    ({"prompt": "a", "stop": ""}, 400, "stop"),
    ({"prompt": "a", "stop": ["a"] * 17}, 400, "stop"),
    ({"prompt": "a", "stream": "yes"}, 400, "stream"),
    ({"prompt": "a", "top_p": 0}, 400, "top_p"),
    ({"prompt": "a", "top_k": 0}, 400, "top_k"),
    ({"prompt": "a", "seed": 2**64}, 400, "seed"),
    ({"prompt": "a", "logit_bias": {"99999": 1}}, 400, "logit_bias: '99999' is no token id"),
    ({"prompt": "a", "logit_bias": {"-1": 1}}, 400, "logit_bias"),
    ({"prompt": "a", "logit_bias": {"٣": 1}}, 400, "logit_bias"),
    ({"prompt": "a", "repetition_penalty": 5e-324}, 400, "repetition_penalty"),
    ({"prompt": "a", "stream_options": {"x": 1}}, 400, "unknown field"),
    ({"prompt": "a", "model": "gpt"}, 404, "there is no model 'gpt'; there is: tiny"),
    ({"prompt": "a", "model": "<script>" * 1000}, 404, "there is no model"),
]


def test_wrong_bodies_are_told_what_is_wrong(address):
    for body, status, message in WRONG:
        found, headers, answer = call(address, "POST", "/v1/completions", body, **{"Content-Type": "application/json"})
        assert found == status and headers["content-type"] == "application/json", (body, answer)
        error = answer["error"]
        assert message in error["message"] and error["type"] == "invalid_request_error", (body, answer)
        assert "Traceback" not in error["message"] and 'File "' not in error["message"] and len(error["message"]) < 500
    assert complete(address, prompt="fox", max_tokens=3)["choices"][0]["text"]


def test_other_ways_and_places_are_refused(address):
    for method, path, status in [("GET", "/v1/completions", 405), ("POST", "/", 405), ("GET", "/etc/passwd", 404),
                                 ("GET", "/../setup.cfg", 404), ("GET", "/docs", 404), ("DELETE", "/health", 405),
                                 ("GET", "/v1/models/" + "a" * 3000, 404)]:  # fmt: skip
        found, headers, answer = call(address, method, path)
        assert found == status and "message" in answer["error"], (method, path, answer)
        assert headers["x-content-type-options"] == "nosniff"


def test_only_json_from_our_own_origin(address):
    body = b'{"prompt": "a"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        status, _, answer = call(address, "POST", "/v1/completions", body, **{"Content-Type": kind})
        assert status == 415 and "Content-Type" in answer["error"]["message"]
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]x", ""):
        assert call(address, "GET", "/health", None, Host=host)[0] == 421, host
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert call(address, "GET", "/health", None, Host=host)[0] == 200, host
    headers = call(address, "OPTIONS", "/v1/completions", None, Origin="http://evil.example",
                   **{"Access-Control-Request-Method": "POST"})[1]  # fmt: skip
    assert not any(name.lower().startswith("access-control") for name in headers)


def test_bodies_that_are_too_large_or_too_slow(model):
    with serving(
        model, "tiny", Limits(slots=1, context=64), Place(port=0, body_bytes=1000, body_seconds=0.3)
    ) as address:
        assert call(address, "POST", "/v1/completions", {"prompt": "a" * 1000})[0] == 413
        where = urlparse(address)

        def raw(data):
            with socket.create_connection((where.hostname, where.port), timeout=20) as client:
                client.sendall(
                    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                )
                client.sendall(data)
                answer = http.client.HTTPResponse(client)
                answer.begin()
                return answer.status

        assert raw(b"Content-Length: 99999999999999999999\r\n\r\n") in (400, 413)
        assert raw(b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"a" * 1024 + b"\r\n") == 413
        assert raw(b'Content-Length: 30\r\n\r\n{"prompt": ') == 408
        assert raw(b"Content-Length: -1\r\n\r\n") == 400
        assert raw(b"X: " + b"a" * 100_000 + b"\r\n\r\n") in (400, 431)
        assert health(address)["status"] == "ok"


def test_a_client_that_hangs_up_frees_its_slot(address):
    for stream in (True, False):
        with connection(address) as each:
            body = json.dumps({**LONG, "n": 8, "stream": stream})
            each.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            until(lambda: health(address)["active"] == 8)
            if stream:
                assert each.getresponse().read(200)
        until(lambda: health(address)["active"] == 0)
    assert complete(address, prompt="fox", max_tokens=3)


def test_a_full_queue_says_when_to_come_back(model):
    with serving(model, "tiny", Limits(slots=2, waiting=3, context=512, rows=8), Place(port=0)) as address:
        with connection(address) as first:
            first.request(
                "POST",
                "/v1/completions",
                json.dumps({**LONG, "n": 4, "max_tokens": 150}),
                {"Content-Type": "application/json"},
            )
            until(lambda: health(address)["active"] == 2)
            assert health(address)["waiting"] == 2
            status, headers, answer = call(address, "POST", "/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1})
            assert status == 429 and headers["retry-after"] == "1" and "busy" in answer["error"]["message"]
            answer = json.loads(first.getresponse().read())
            assert len(answer["choices"]) == 4 and len({each["text"] for each in answer["choices"]}) == 1
        complete(address, prompt=["a", "b"], max_tokens=1)


def test_what_takes_too_long_is_given_up(model):
    with serving(model, "tiny", Limits(slots=1, context=512, seconds=0.15), Place(port=0)) as address:
        status, headers, answer = call(address, "POST", "/v1/completions", LONG)
        assert status == 503 and "not done within 0.15 seconds" in answer["error"]["message"]
        text = call(address, "POST", "/v1/completions", {**LONG, "stream": True})[2]
        assert "not done within" in events(text)[-1]["error"]["message"]
        until(lambda: health(address)["active"] == 0)


def test_shutting_down_lets_answers_end():
    model = tiny()
    with serving(model, "tiny", Limits(slots=4, context=512), Place(port=0)) as address:
        asked, found = {**LONG, "max_tokens": 200}, []
        client = threading.Thread(target=lambda: found.append(call(address, "POST", "/v1/completions", asked)))
        client.start()
        until(lambda: health(address)["active"] == 1)
    client.join()
    assert found[0][0] == 200 and found[0][2]["usage"]["completion_tokens"] == 200
    with pytest.raises(ConnectionRefusedError):
        call(address, "GET", "/health")


def test_a_fault_inside_ends_the_texts_and_not_the_server(model, caplog):
    said = []
    engine = Engine(model, Limits(slots=2, context=64))
    good = engine.slots.step
    engine.slots.step = lambda tokens: 1 / 0
    engine.start()
    engine.submit(["fox"], Want(5), said.append)
    until(lambda: said and said[-1].reason)
    assert said[-1].error == "internal error" and "ZeroDivisionError" in caplog.text
    engine.slots.step = good
    engine.submit(["fox"], Want(5), said.append)
    until(lambda: said[-1].reason == "length")
    engine.close()
    with pytest.raises(Busy, match="shutting down"):
        engine.submit(["fox"], Want(5), said.append)


def test_extreme_values_give_text(address, model):
    best = model.generate("fox", temperature=0, max_new_tokens=5)
    for options in (
        {"temperature": 5e-324},
        {"temperature": 1e-30, "min_p": 5e-324},
        {"temperature": 1, "top_p": 5e-324},
    ):
        assert complete(address, prompt="fox", max_tokens=5, **options)["choices"][0]["text"] == best, options
    wild = {"temperature": 100, "logit_bias": {str(i): 100 - i % 200 for i in range(256)}, "repetition_penalty": 0.01}
    answer = complete(address, prompt="fox", max_tokens=5, n=3, logprobs=20, **wild)
    ends, used = [choice["finish_reason"] for choice in answer["choices"]], answer["usage"]["completion_tokens"]
    assert len(ends) == 3 and set(ends) <= {"length", "stop"}
    assert used == 15 if set(ends) == {"length"} else 3 <= used <= 15  # the token that ends a text may be drawn


def test_a_sampler_that_chooses_no_token_is_told(model):
    said = []
    engine = Engine(model, Limits(slots=2, context=64))
    engine.submit(["fox"], Want(5, sampler_of(processors=[LogitBias({1: float("nan")})])), said.append)
    engine.start()
    until(lambda: said)
    engine.close()
    assert said[-1].status == 400 and "no token to choose" in said[-1].error


def test_a_sampler_that_fails_harms_nobody_else(model):
    def broken(logits, history):
        raise ValueError

    one, other = [], []
    engine = Engine(model, Limits(slots=2, context=64))
    engine.submit(["fox"], Want(5, Sampler([type("Broken", (), {"begin": lambda s: broken})()], Greedy())), one.append)
    engine.submit(["fox"], Want(5), other.append)
    engine.start()
    until(lambda: other and other[-1].reason)
    assert one[-1].reason == "error" and other[-1].reason == "length"
    engine.close()


def test_other_addresses_need_a_word():
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "", "127.0.0.1.example.org"):
        assert not is_loopback(host)
        with pytest.raises(UserError, match="--allow_remote"):
            listening(Place(host=host, port=0))
    with pytest.raises(UserError, match="no address of this machine"):
        listening(Place(host="127.0.0.1", port=99999999))
    with listening(Place(port=0)) as taken:
        taken.listen()
        with pytest.raises(EnvironmentFault, match="choose another --port"):
            listening(Place(port=taken.getsockname()[1]))


def test_a_model_that_does_not_write_is_not_served(model):
    from lit_transformer.generation import Model
    from lit_transformer.networks import EncoderOnly

    network = EncoderOnly(model.network.vocabulary, model.network.dims)
    with pytest.raises(UserError, match="EncoderOnly does not write text"):
        Engine(Model(network, model.tokenizer), Limits(slots=1))
