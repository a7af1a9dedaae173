"""Text of a given structure."""

import json
import re

import pytest
import torch

pytest.importorskip("outlines_core")

from lit_transformer.errors import UserError
from lit_transformer.generation import Multinomial, Sampler, Structured, generate

from .small import Letters, build

LETTERS = Letters('\n{}":,abc0129')
PROMPTS = [[1, 2, 3], [7]]


def structured(pattern, letters=LETTERS):
    return Structured(pattern, letters.decode, len(letters.letters), eos_id=0)


@pytest.mark.parametrize("pattern", ["[abc]{2,5}", "(ab|ba)+c{3}", '("a"|"b")(,"[0-9]{1,3}")*', "a{4}|b{2}c?"])
def test_text_always_matches(pattern):
    network = build(eos_id=0)
    with torch.no_grad():
        network.embedding.weight.mul_(0.2)
    sampler = Sampler([structured(pattern)], Multinomial())
    found = generate(network, PROMPTS, sampler=sampler, max_new_tokens=40, samples=20, seed=1)
    ended = [LETTERS.decode(each.tokens) for each in found if each.reason == "stop id"]
    assert len(ended) > 10 and all(re.fullmatch(pattern, text) for text in ended)
    assert len(set(ended)) > 1
    begun = [LETTERS.decode(each.tokens) for each in found if each.reason == "length"]
    assert all(re.match(pattern.replace("c{3}", ""), text) for text in begun)


def test_free_tokens_change_nothing():
    network = build(eos_id=0)
    found = generate(network, PROMPTS, sampler=Sampler([structured(r"[\s\S]*")]), max_new_tokens=12)
    expected = generate(network, PROMPTS, sampler=Sampler(), max_new_tokens=12)
    assert [each.tokens for each in found] == [each.tokens for each in expected]


def test_json_of_a_schema():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"enum": ["c", "cc"]}},
        "required": ["a", "b"],
    }
    letters = Letters('\n{}":,abc0129 ')
    network = build(eos_id=0, size=len(letters.letters))
    rule = Structured.json(schema, letters.decode, len(letters.letters), eos_id=0)
    found = generate(network, PROMPTS, sampler=Sampler([rule], Multinomial()), max_new_tokens=60, samples=10, seed=2)
    ended = [json.loads(letters.decode(each.tokens)) for each in found if each.reason == "stop id"]
    assert len(ended) > 10 and all(type(each["a"]) is int and each["b"] in ("c", "cc") for each in ended)


def test_what_cannot_be_written_is_refused():
    with pytest.raises(UserError, match="pattern:"):
        structured("(")
    with pytest.raises(UserError, match="pattern:"):
        structured("z+")
    with pytest.raises(UserError, match="schema:"):
        Structured.json("{", LETTERS.decode, 13, eos_id=0)
