"""What the server answers is what the model writes."""

import json
import threading
import time

import pytest

from lit_transformer.generation import FrequencyPenalty, LogitBias, RepetitionPenalty

from .conftest import TEXT, call, complete, events

PROMPTS = ["the quick", "Pack my box", "naïve café — 你", "", "fox jumps over the lazy dog", "x"]


def test_greedy_is_the_models_greedy(address, model):
    for prompt in PROMPTS:
        answer = complete(address, prompt=prompt, max_tokens=20, model="tiny")
        assert answer["object"] == "text_completion" and answer["model"] == "tiny"
        (choice,) = answer["choices"]
        assert choice["text"] == model.generate(prompt, temperature=0, max_new_tokens=20)
        assert choice["finish_reason"] == "length" and choice["logprobs"] is None
        read = len(model.prompting(prompt))
        assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": 20, "total_tokens": read + 20}


def test_every_way_to_draw_is_the_models(address, model):
    asked = dict(temperature=0.9, top_k=50, top_p=0.9, min_p=0.001, n=3, seed=7, max_tokens=12, stop=["a", "zz"])
    answer = complete(address, prompt=["fox", "dog"], **asked)
    options = dict(temperature=0.9, top_k=50, top_p=0.9, min_p=0.001, samples=3, seed=7, max_new_tokens=12)
    expected = model.complete(["fox", "dog"], stop=["a", "zz"], **options)
    assert [each["index"] for each in answer["choices"]] == list(range(6))
    assert [each["text"] for each in answer["choices"]] == [each.text for each in expected]
    assert len({each["text"] for each in answer["choices"]}) > 3
    reasons = ["length" if each.reason == "length" else "stop" for each in expected]
    assert [each["finish_reason"] for each in answer["choices"]] == reasons


def test_penalties_and_biases_are_the_models(address, model):
    asked = dict(frequency_penalty=0.8, repetition_penalty=1.3, logit_bias={"5": 3.0, "7": -100}, max_tokens=15)
    processors = [RepetitionPenalty(1.3), FrequencyPenalty(0.8), LogitBias({5: 3.0, 7: -100.0})]
    expected = model.generate("fox", temperature=0, processors=processors, max_new_tokens=15)
    assert complete(address, prompt="fox", **asked)["choices"][0]["text"] == expected


def test_tokens_as_prompts(address, model):
    tokens = model.tokenizer.encode("the quick")
    one = complete(address, prompt=tokens, max_tokens=8)["choices"][0]["text"]
    two = complete(address, prompt=[tokens, tokens[:1]], max_tokens=8, echo=True)["choices"]
    assert one == complete(address, prompt="the quick", max_tokens=8)["choices"][0]["text"]
    assert two[0]["text"] == "the quick" + one and len(two) == 2


def test_streamed_text_is_the_text(address, model):
    for prompt, n in (("naïve café", 1), (["fox", "你"], 2)):
        asked = dict(prompt=prompt, max_tokens=25, temperature=1.2, seed=5, n=n, stop="ox", logprobs=2, echo=True)
        answer = complete(address, **asked)
        status, headers, text = call(
            address, "POST", "/v1/completions", {**asked, "stream": True, "stream_options": {"include_usage": True}}
        )
        assert status == 200 and headers["content-type"].startswith("text/event-stream")
        *pieces, last = events(text)
        assert last["choices"] == [] and last["usage"] == answer["usage"]
        assert len({piece["id"] for piece in pieces}) == 1
        for choice in answer["choices"]:
            mine = [each for piece in pieces for each in piece["choices"] if each["index"] == choice["index"]]
            assert "".join(each["text"] for each in mine) == choice["text"]
            assert [each["finish_reason"] for each in mine if each["finish_reason"]] == [choice["finish_reason"]]
            tokens = [token for each in mine for token in (each["logprobs"] or {"tokens": []})["tokens"]]
            assert tokens == choice["logprobs"]["tokens"]


def test_log_probabilities_are_the_models(address, model):
    asked = complete(address, prompt="the quick", max_tokens=6, logprobs=3)["choices"][0]
    (expected,) = model.complete(["the quick"], temperature=0, max_new_tokens=6, log_probabilities=True)
    said = asked["logprobs"]
    assert said["token_logprobs"] == pytest.approx(expected.log_probabilities, abs=1e-4)
    assert "".join(said["tokens"]) == asked["text"] and said["text_offset"][0] == 0
    for token, value, others in zip(said["tokens"], said["token_logprobs"], said["top_logprobs"], strict=True):
        assert len(others) <= 3 and max(others.values()) == others[token] == value


def test_no_tokens_asked_for(address):
    answer = complete(address, prompt="fox", max_tokens=0, echo=True)
    assert answer["choices"][0]["text"] == "fox" and answer["usage"]["completion_tokens"] == 0


def test_64_clients_at_once_get_the_single_answers(address, model):
    """Each answer equals the one alone; those that had to be refused for a full queue ask again."""
    wanted = [dict(prompt=TEXT[i : i + 1 + i % 23], max_tokens=3 + 4 * (i % 6), stream=bool(i % 2)) for i in range(64)]
    expected = [model.generate(each["prompt"], temperature=0, max_new_tokens=each["max_tokens"]) for each in wanted]
    found = [None] * 64
    start = threading.Barrier(64)

    def client(i):
        start.wait()
        status = 429
        while status == 429:
            status, headers, answer = call(address, "POST", "/v1/completions", {"temperature": 0, **wanted[i]})
            if status == 429:
                assert headers["retry-after"] == "1"
                time.sleep(0.05)
        if wanted[i]["stream"]:
            found[i] = "".join(each["text"] for piece in events(answer) for each in piece["choices"])
        else:
            found[i] = answer["choices"][0]["text"]

    clients = [threading.Thread(target=client, args=(i,)) for i in range(64)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert found == expected


def test_models_and_health(address):
    status, _, answer = call(address, "GET", "/v1/models")
    assert status == 200 and [each["id"] for each in answer["data"]] == ["tiny"]
    assert call(address, "GET", "/v1/models/tiny")[2]["id"] == "tiny"
    assert call(address, "GET", "/v1/models/large")[0] == 404
    status, _, answer = call(address, "GET", "/health")
    assert status == 200 and answer["status"] == "ok"


def test_the_schema_is_told(address):
    status, _, schema = call(address, "GET", "/openapi.json")
    assert status == 200 and "422" not in json.dumps(schema)
    fields = schema["components"]["schemas"]["CompletionRequest"]["properties"]
    assert all("description" in field for name, field in fields.items() if name not in ("stream_options",))
