"""The page, in a real browser."""

import os
from pathlib import Path

import pytest

from .browser import CHROMIUM, Browser
from .conftest import call

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

TEXT = "document.getElementById('text').textContent"
STATUS = "document.getElementById('status').textContent"
SHADE = "getComputedStyle(document.body).backgroundColor"


def value(name, text):
    return f"document.getElementById('{name}').value = {text!r}"


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(address)
        yield browser


def seen(page, name):
    """A picture for those who want to look at it: of the folder that LIT_TRANSFORMER_PICTURES names."""
    if folder := os.environ.get("LIT_TRANSFORMER_PICTURES"):
        page.picture(Path(folder) / f"page-{name}.png")


def test_it_writes_by_keyboard_alone(page, model):
    page.until("document.getElementById('model').textContent.startsWith('tiny, 512')")
    assert page.run("document.activeElement.id") == "prompt"
    page.type("the quick")
    for name in ("max_tokens", "temperature"):
        page.run(value(name, {"max_tokens": "40", "temperature": "0"}[name]))
    page.key("Enter", 13, control=True)
    page.until(f"{STATUS}.startsWith('40 tokens')")
    assert page.run(TEXT) == "the quick" + model.generate("the quick", temperature=0, max_new_tokens=40)
    assert page.run("document.getElementById('go').disabled") is False
    seen(page, "light")


def test_nothing_is_loaded_from_elsewhere_and_nothing_fails(page, address):
    assert page.said == []
    assert page.requests and all(url.startswith((address, "about:")) for url in page.requests)


def test_options_reach_the_server_and_mistakes_are_said(page, model):
    for name, text in (("seed", "7"), ("temperature", "1.1"), ("top_k", "20"), ("max_tokens", "9"), ("stop", "zzzz")):
        page.run(value(name, text))
    page.run("document.getElementById('go').click()")
    page.until(f"{STATUS}.startsWith('9 tokens')")
    expected = model.generate("the quick", temperature=1.1, top_k=20, seed=7, max_new_tokens=9)
    assert page.run(TEXT) == "the quick" + expected
    page.run(value("prompt", "word " * 500))
    page.run("document.getElementById('go').click()")
    page.until(f"{STATUS}.includes('the prompt has')")
    assert page.run("document.getElementById('status').classList.contains('wrong')")
    page.run(value("max_tokens", "0"))  # the form itself refuses it
    page.run("document.getElementById('go').click()")
    assert page.run("document.querySelector(':invalid') !== null")


def test_text_is_never_read_as_html(page):
    page.run("window.fired = false")
    page.run(value("prompt", "<img src=x onerror='window.fired=true'><script>window.fired=true</script>&amp;"))
    for name, text in (("max_tokens", "3"), ("temperature", "0")):
        page.run(value(name, text))
    page.run("document.getElementById('go').click()")
    page.until(f"{STATUS}.startsWith('3 tokens')")
    assert page.run(TEXT).startswith("<img src=x onerror=") and "&amp;" in page.run(TEXT)
    assert page.run("document.querySelectorAll('#text *').length") == 2 and not page.run("window.fired")


def test_escape_stops_and_frees_the_slot(page, address):
    page.run(value("prompt", "the"))
    page.run(value("max_tokens", "400"))
    page.run("document.getElementById('go').click()")
    page.until("document.getElementById('written').textContent.length > 5")
    page.key("Escape", 27)
    page.until(f"{STATUS} === 'stopped'")
    for _ in range(200):
        if call(address, "GET", "/health")[2]["active"] == 0:
            break
    else:
        raise AssertionError("the slot is not free")
    assert page.run("document.getElementById('go').disabled") is False


def test_dark_and_light(page, address, tmp_path):
    light = page.run(SHADE)
    page.run("document.getElementById('theme').click()")
    assert page.run(SHADE) != light
    page.run("document.getElementById('theme').click()")
    assert page.run(SHADE) == light
    page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.open(address)
    page.until("document.getElementById('model').textContent.startsWith('tiny')")
    assert page.run(SHADE) != light
    page("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth <= 360")  # nothing to scroll aside on a telephone
    seen(page, "dark")
