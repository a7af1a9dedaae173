"""Text in, text out: characters stay whole, stop strings are found wherever they are cut."""

import pytest

from lit_transformer.errors import UserError
from lit_transformer.generation import Sampler, StopStrings, TextStream, complete, sample_text, sampler_of

from .small import Letters, build

TEXT = "naïve café — 你好, мир! 👩‍👩‍👧‍👦 \N{REPLACEMENT CHARACTER} end"


def decode_bytes(ids):
    return bytes(ids).decode("utf-8", errors="replace")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_stream_of_bytes_gives_whole_characters(size):
    data = TEXT.encode() * 5
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    stream = TextStream(lambda ids: b"".join(chunks[i] for i in ids).decode("utf-8", errors="replace"))
    pieces = [stream.push(i) for i in range(len(chunks))] + [stream.flush()]
    assert "".join(pieces) == TEXT * 5
    for i in range(len(chunks)):  # what was shown by then is a start of the text, never a broken character
        assert (TEXT * 5).startswith("".join(pieces[: i + 1]))


def test_bytes_that_never_become_a_character_come_out():
    stream = TextStream(decode_bytes)
    data = b"a\xff\xfe\x80b\xe4\xbd"
    pieces = [stream.push(byte) for byte in data]
    assert "".join(pieces) == data[:-2].decode("utf-8", errors="replace")
    assert "".join([*pieces, stream.flush()]) == data.decode("utf-8", errors="replace")


def test_a_decoder_that_treats_the_first_token_differently():
    words = ["one", "two", "three"]

    def decode(ids):
        return " ".join(words[i % 3] for i in ids)

    stream = TextStream(decode, start=[0])
    ids = list(range(1, 80))
    assert "one" + "".join(stream.push(i) for i in ids) == decode([0, *ids])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    ("strings", "text", "shown"),
    [
        (["\n\n"], "a\nb\n\nc", "a\nb"),
        (["abc", "bd"], "xxabdyy", "xxa"),
        (["aab"], "aaab", "a"),
        (["end"], "the en", "the en"),
        (["x", "abcx"], "zabcx", "z"),
        ([], "anything", "anything"),
    ],
)
def test_stop_strings_across_pieces(strings, text, shown, size):
    stops = StopStrings(strings)
    result = ""
    for i in range(0, len(text), size):
        piece, stopped = stops.push(text[i : i + size])
        result += piece
        assert shown.startswith(result)
        if stopped:
            break
    else:
        result += stops.flush()
    assert result == shown


def test_a_stop_string_ends_a_completion_and_leaves_the_others():
    network, letters = build(), Letters()
    prompts = ["abc", "d", "hello".translate({ord("o"): "l"})]
    free = complete(network, letters, prompts, max_new_tokens=20, seed=1)
    stop = free[0].text[7:10]
    stopped = complete(network, letters, prompts, max_new_tokens=20, seed=1, stop=[stop])
    for with_stop, without in zip(stopped, free, strict=True):
        assert with_stop.text == without.text.split(stop)[0]
        assert with_stop.reason == ("stop string" if stop in without.text else "length")
    assert stopped[0].text


def test_streamed_text_is_the_text():
    network, letters = build(), Letters()
    pieces = {}

    def on_text(completion, piece):
        key = completion.prompt, completion.sample
        pieces[key] = pieces.get(key, "") + piece

    options = dict(sampler=sampler_of(), max_new_tokens=15, seed=3, samples=2)
    streamed = complete(network, letters, ["abc", ""], on_text=on_text, stop=["ab"], **options)
    assert all(pieces.get((each.prompt, each.sample), "") == each.text for each in streamed)
    plain = complete(network, letters, ["abc", ""], **options)
    assert [each.text.split("ab")[0] for each in plain] == [each.text for each in streamed]


def test_empty_prompts_start_a_document_or_a_line():
    def first(network, prompt):
        return complete(network, Letters(), [prompt], sampler=Sampler(), max_new_tokens=5, stop_ids=())[0].text

    network = build()
    assert first(build(eos_id=5), "") == first(network, "e")
    assert first(build(bos_id=5, eos_id=6), "") == first(network, "e")
    assert first(build(bos_id=5), "ab") == first(network, "eab")
    by_line = complete(network, Letters(), [""], sampler=Sampler(), max_new_tokens=5)
    assert by_line[0].text == complete(network, Letters(), ["\n"], sampler=Sampler(), max_new_tokens=5)[0].text
    with pytest.raises(UserError, match="the prompt is empty"):
        complete(network, Letters("abcdefghijklm"), [""], max_new_tokens=5)


def test_unknown_characters_are_named():
    with pytest.raises(UserError, match="does not know: 'é', '你'"):
        complete(build(), Letters(), ["aé你a"], max_new_tokens=5)


def test_sample_text():
    network = build()
    network.train()
    text = sample_text(network, Letters(), "abc", max_new_tokens=10, temperature=0.8, top_k=5, seed=1)
    assert text.startswith("abc") and len(text) == 13
    assert text == sample_text(network, Letters(), "abc", 10, 0.8, 5, 1)
    assert network.training
