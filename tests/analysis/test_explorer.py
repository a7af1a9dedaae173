"""The explorer: what the page holds, and the page in a real browser with the network off."""

import json
import re
import xml.etree.ElementTree as ElementTree
import zlib
from base64 import b64decode
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_transformer.analysis.compact import restored
from lit_transformer.analysis.details import biases, log_sums, vectors
from lit_transformer.analysis.explorer import Explorer, explore
from lit_transformer.analysis.gradients import confidence, gradient_weighted
from lit_transformer.analysis.reading import Reading, read
from lit_transformer.analysis.record import record_attention
from lit_transformer.analysis.rollout import flow
from lit_transformer.blocks import (
    ALiBi,
    Attention,
    CoPE,
    DifferentialAttention,
    LatentAttention,
    Layer,
    LinearAttention,
)
from lit_transformer.data.tokenizers import Bytes, Character
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.generation import Model, SourcePrompting
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, Network, PrefixLM
from tests.analysis.browser import PROGRAM, Browser

TEXT = "ab <script>alert(1)</script> & \"ab\" 'é'\n</textarea><!-- ab"
DIMS = Dims(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, d_ff=32)


def drawn(architecture=DecoderOnly, longest: int = 80, seed: int = 0, **parts: object) -> Model:
    """A model with random weights, sharp enough to have something to show."""
    tokenizer = Bytes(("<bos>", "<eos>", "<sep>")).build(iter([TEXT]))
    network: Network = architecture(tokenizer.vocabulary(longest), parts.pop("dims", DIMS), **parts)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    for each in network.modules():
        if isinstance(each, Attention):
            each.query.weight.data *= 3
    prompting = SourcePrompting(tokenizer, tokenizer.eos_id) if architecture in (EncoderDecoder, PrefixLM) else None
    return Model(network.eval(), tokenizer, prompting)


def parsed(page: Explorer) -> tuple[dict, dict[int, bytes]]:
    text = page.html()
    index = json.loads(re.search(r'<script type="application/json" id="index">(.*?)</script>', text, re.S)[1])
    blobs = re.findall(r'<script type="application/octet-stream" id="b(\d+)">([^<]*)</script>', text)
    return index, {int(number): b64decode(data) for number, data in blobs}


def cells_of(chapter: dict, blobs: dict[int, bytes], key: str) -> np.ndarray:
    """A matrix at the finest level that the page holds, of at most one tile."""
    if chapter["thumbs"]["level"] == 0 and key[0].isdigit():
        layer, head = map(int, key.split("."))
        number = sum(each["heads"] for each in chapter["layers"][:layer]) + head
        rows, columns = chapter["thumbs"]["rows"], chapter["thumbs"]["columns"]
        found = np.frombuffer(zlib.decompress(blobs[chapter["thumbs"]["blob"]]), np.uint8)
        return found.reshape(-1, rows, columns)[number]
    rows, columns, blob, _ = chapter["maps"][key]["levels"][0]
    return np.frombuffer(zlib.decompress(blobs[blob]), np.uint8).reshape(rows, columns)


@pytest.mark.parametrize("architecture", [DecoderOnly, EncoderOnly, PrefixLM, EncoderDecoder])
def test_the_page_holds_the_weights(architecture) -> None:
    reading = read(drawn(architecture), TEXT, "ab ba" if architecture is not DecoderOnly else None)
    index, blobs = parsed(explore([reading]))
    (model,) = index["models"]
    assert "".join(model["sourceWords"] or model["words"]).startswith(("<bos>ab <", "ab <"))
    names = [chapter["name"] for chapter in model["chapters"]]
    assert names == (["encoder", "decoder", "cross"] if architecture is EncoderDecoder else ["stack"])
    for chapter in model["chapters"]:
        layers = [each for each in reading.record.layers
                  if each.cross == chapter["cross"] and each.stack in ("stack", "decoder" if chapter["cross"] else chapter["name"])]  # fmt: skip
        assert len(layers) == 2
        for place, layer in enumerate(layers):
            for head in range(4):
                found = restored(cells_of(chapter, blobs, f"{place}.{head}"))
                torch.testing.assert_close(found, layer.weights()[0, head], atol=0.0041, rtol=0)
        assert sorted(chapter["order"]) == list(range(8)) and len(chapter["metrics"]["values"]) == 8
        assert len(chapter["details"]) == 8


def test_scores_can_be_told_from_the_vectors() -> None:
    """Position, cap, bias and the mask: the parts that the page adds up give the weights."""
    layer = partial(Layer, attention=partial(Attention, soft_cap=2.0))
    for position in (None, ALiBi, CoPE):
        parts = {"layer": layer} | ({} if position is None else {"position": position})
        reading = read(drawn(**parts), TEXT)
        recorded = reading.record.layers[1]
        found, added = vectors(recorded), biases(recorded)
        assert (found.plain_q is None) == (position is not None) and (added is None) == (position is None)
        head, query = 3, 20
        scores = found.q[head, query] @ found.k[1].T / 8**0.5
        scores = (scores / 2.0).tanh() * 2.0
        if position is ALiBi:
            line = added.by_distance[head]
            scores = scores + torch.from_numpy(line[[query - key + len(scores) - 1 for key in range(len(scores))]])
        if position is CoPE:
            scores = scores + torch.from_numpy(added.table[head, query].astype("f4"))
        weights = (scores - log_sums(recorded, head)[query]).exp()[: query + 1]
        torch.testing.assert_close(weights, recorded.weights()[0, head, query, : query + 1], atol=2e-3, rtol=2e-3)


def test_gradients_are_what_small_changes_do() -> None:
    model = drawn(EncoderOnly, position=ALiBi)
    reading = read(model, "abcab")
    found = gradient_weighted(model.network, reading.inputs, confidence)
    name = "stack.layers.1.attention"
    layer = reading.record[name]
    weights, (call,) = layer.weights(), layer.calls
    values = call.v.repeat_interleave(2, dim=1)

    def said(given: torch.Tensor) -> float:
        def hook(module, inputs):
            return (given @ values).transpose(1, 2).flatten(2)

        handle = model.network.stack.layers[1].attention.output.register_forward_pre_hook(hook)
        try:
            return float(confidence(model.network(**reading.inputs)).detach())
        finally:
            handle.remove()

    step = 1e-2
    for head, query, key in ((0, 5, 2), (3, 1, 4)):
        change = torch.zeros_like(weights)
        change[0, head, query, key] = step
        slope = (said(weights + change) - said(weights - change)) / (2 * step)
        expected = float(slope * weights[0, head, query, key])
        assert found[name][0, head, query, key] == pytest.approx(expected, rel=2e-2, abs=2e-5)
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_what_was_generated_is_recorded_step_by_step() -> None:
    model = drawn()
    reading = read(model, "ab", generate=6)
    assert reading.given == 3 and len(reading.words) == 3 + 5
    expected = model.complete(["ab"], temperature=0, max_new_tokens=6)[0].tokens
    assert reading.tokens[3:].tolist() == expected[:5]
    assert len(reading.record.layers[0].calls) == 6
    with torch.no_grad(), record_attention(model.network) as whole:
        model.network(reading.tokens.unsqueeze(0))
    for one, other in zip(reading.record.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.weights(), other.weights(), rtol=1e-4, atol=1e-5)
    translator = read(drawn(EncoderDecoder), "ab", generate=4)
    assert translator.given == 1 and translator.record.of("decoder", cross=True)[0].shape == (len(translator.words), 3)


def test_sizes_are_kept_and_heads_on_demand() -> None:
    model = drawn(longest=300, dims=Dims(32, 2, 4))
    reading = read(model, (TEXT * 9)[:280])
    small = explore([reading], megabytes=0.45)
    assert len(small.html().encode()) <= 450_000 and small.left_out
    index, _ = parsed(small)
    (chapter,) = index["models"][0]["chapters"]
    whole = [key for key, each in chapter["maps"].items() if each["first"] == 0 and key[0].isdigit()]
    assert len(whole) < 8
    assert all(each["levels"][-1][:2] <= [128, 128] for each in chapter["maps"].values())
    missing = next(f"{layer}.{head}" for layer in range(2) for head in range(4) if f"{layer}.{head}" not in whole)
    asked, _ = parsed(explore([reading], [missing], megabytes=0.45))
    chapter = asked["models"][0]["chapters"][0]
    assert chapter["maps"][missing]["first"] == 0 and missing in chapter["details"] and missing in chapter["links"]
    with pytest.raises(UserError, match="head '7.0': there is none .* stack 0.0 to 1.3"):
        explore([reading], ["7.0"])


@pytest.mark.parametrize("attention", [LatentAttention, DifferentialAttention])
def test_other_attentions_have_a_page(attention) -> None:
    model = drawn(dims=Dims(32, 2, 4), layer=partial(Layer, attention=attention))
    for generate in (0, 3):
        index, _ = parsed(explore([read(model, "abab", generate=generate)]))
        assert len(index["models"][0]["chapters"][0]["metrics"]["values"]) == 8


def test_texts_that_cannot_be_read() -> None:
    model = drawn(longest=8)
    for text, options, said in (
        (" ", {}, "the text is empty"),
        ("ab", {"second": ""}, "the second text is empty"),
        ("abcdefghij", {}, "has 11 tokens and the model reads 8: shorten it"),
        ("abcd", {"generate": 9}, "generate at most 4"),
    ):
        with pytest.raises(UserError, match=said):
            read(model, text, **options)
    with pytest.raises(UserError, match="writes no text"):
        read(drawn(EncoderOnly), "ab", generate=2)
    words = Character(["<eos>"]).build(iter(["a b"]))
    with pytest.raises(UserError, match="does not know"):
        read(Model(DecoderOnly(words.vocabulary(8), DIMS), words), "a c")
    linear = drawn(dims=Dims(32, 1, 4), layer=partial(Layer, attention=LinearAttention))
    with pytest.raises(UserError, match="none of its attentions has weights"):
        read(linear, "ab")


@pytest.fixture(scope="module")
def browser():
    if PROGRAM is None:
        pytest.skip("no chromium here")
    tab = Browser()
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def translation(tmp_path_factory) -> tuple[Path, Reading]:
    reading = read(drawn(EncoderDecoder), TEXT, "ab ba </script> ab")
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    explore([reading]).save(path)
    return path, reading


def quiet(browser: Browser) -> bool:
    """Neither a complaint on the console nor anything asked of a network."""
    return browser.complaints == [] and {url.split(":")[0] for url in browser.requests} <= {"file", "blob"}


def test_a_click_on_a_head_shows_its_links(browser: Browser, translation) -> None:
    path, _ = translation
    assert browser.open(path) < 10  # under 2 on an idle machine
    browser.wait("document.querySelectorAll('.thumb canvas').length === 8")
    assert "script" not in browser.run(
        "[...document.querySelectorAll('.token bdi')].map(e => e.innerHTML.includes('<') ? 'script' : '').join('')"
    )
    assert "&lt;" in browser.run("[...document.querySelectorAll('.token.k')].map(e => e.innerHTML).join('')")
    browser.click('[data-head="1.2"]')
    browser.wait("document.querySelector('.chip').textContent === '1.2'")
    lines = "[...window.explorer.scenes.values()][0]().items.filter(item => item.line).length"
    picture = "document.querySelector('.links canvas').toDataURL().length"
    browser.wait(f"{lines} > 100 && (window.many = {lines})")  # in one go: it may be drawn anew between two questions
    many, inked = browser.run("window.many"), browser.run(picture)
    browser.click('.token.q[data-i="2"]')
    browser.mouse("mouseMoved", 640, 5)
    browser.wait("document.querySelector('.token.q.pinned') !== null")
    browser.wait(f"{lines} < {many} / 2 && {lines} > 0")
    assert 100 < browser.run(picture) < inked
    browser.click('[data-head="0.1"]', shift=True)
    browser.wait("document.querySelectorAll('.chip').length === 2")
    assert quiet(browser)


def test_pictures_are_valid(browser: Browser, translation) -> None:
    path, reading = translation
    browser.open(path)
    for tab in ("links", "matrix", "why", "steps"):
        browser.click(f"#tab-{tab}")
        browser.wait("window.explorer.scenes.size === 1 && !!window.explorer.exported('svg', 'light', 'x')")
        browser.wait("window.explorer.exported('svg', 'light', 'x').then(text => !!text)")
        text = browser.run("window.explorer.exported('svg', 'light', 'x')")
        root = ElementTree.fromstring(text.encode())
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and len(list(root.iter())) > 20, tab
    assert browser.run("window.explorer.exported('png', 'dark', 'x').then(b => b.size)") > 1000
    browser.click("#tab-matrix")
    browser.wait("!!document.querySelector('.stage canvas')")
    browser.run("document.querySelector('.stage canvas').focus()")
    browser.key("ArrowDown")
    browser.wait("document.querySelector('.said').textContent.includes('looks at')")
    browser.wait("!document.querySelector('.said').textContent.includes('...')")
    said = browser.run("document.querySelector('.said').textContent")
    head = browser.run("document.querySelector('.chip').textContent")
    layer, number = map(int, head.split("."))
    weight = reading.record.of("decoder", cross=True)[layer].weights()[0, number, 1, 0]
    assert float(re.search(r"weight ([0-9.]+)", said)[1]) == pytest.approx(float(weight), abs=0.0042)
    assert quiet(browser)


def test_why_adds_up(browser: Browser, tmp_path) -> None:
    """The weight that the page finds from its vectors is the recorded one."""
    reading = read(drawn(layer=partial(Layer, attention=partial(Attention, soft_cap=3.0)), position=ALiBi), TEXT)
    explore([reading]).save(tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.click("#tab-why")
    browser.wait("document.querySelectorAll('.steps tr').length === 7")
    rows = browser.run(
        "[...document.querySelectorAll('.steps tr')].map(e => [e.cells[0].textContent, +e.cells[1].textContent])"
    )
    assert [name.split(" ")[0] for name, _ in rows] == ["q·k", "×", "bent", "bias", "score", "−", "weight"]
    head = browser.run("document.querySelector('.chip').textContent")
    layer, number = map(int, head.split("."))
    weight = float(reading.record.layers[layer].weights()[0, number, -1, 0])
    assert rows[-1][1] == pytest.approx(weight, rel=0.05, abs=0.002)
    assert quiet(browser)


def test_flow_in_the_page_is_that_of_the_package(browser: Browser, tmp_path) -> None:
    reading = read(drawn(), "abab <script>")
    explore([reading]).save(tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.click("#tab-paths")
    found = browser.run(
        "(async () => { const c = window.explorer.models[0].chapters[0]; const n = c.rows;"
        " const m = (await Promise.all(c.layers.map((_, l) => c.linksOf('mean.' + l)))).map(cells => mixed(cells, n, 0.5));"
        " const flow = maximumFlows(m, n, n - 2); return [...Array(n).keys()].map(flow); })()"
    )
    torch.testing.assert_close(torch.tensor(found), flow(reading.record.layers, -2), atol=0.01, rtol=0)
    assert quiet(browser)


def test_two_models_long_text_keys_and_themes(browser: Browser, tmp_path) -> None:
    long = (TEXT * 12)[:600]
    readings = [read(drawn(longest=700, seed=seed), long, name=f"run {seed} <b>") for seed in (0, 1)]
    explore(readings).save(tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.wait("document.querySelectorAll('.panel canvas').length === 2")
    assert browser.run("document.querySelectorAll('.panel h2')[1].textContent") == "run 1 <b>"
    assert browser.run("document.querySelectorAll('.token').length") < 400  # only what is on the screen
    browser.run("document.querySelector('.scroller').scrollTop = 6000")
    browser.wait("!!document.querySelector('.token.q[data-i=\"280\"]')")
    theme = browser.run("document.documentElement.dataset.theme")
    browser.key("d")
    browser.wait(f"document.documentElement.dataset.theme !== '{theme}'")
    for key, view in (("2", "matrix"), ("3", "why"), ("4", "paths"), ("5", "stepping"), ("1", "links")):
        browser.key(key)
        browser.wait(f"document.querySelectorAll('.panel > .{view}').length === 2")
    browser.key("m")
    browser.wait("document.querySelectorAll('.panel').length === 1")
    before = browser.run("document.querySelector('.chip').textContent")
    browser.key("ArrowRight")
    browser.wait(f"document.querySelector('.chip').textContent !== '{before}'")
    assert quiet(browser)
