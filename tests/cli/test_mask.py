"""The verb that draws masks."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib

import pytest
import torch

from lit_transformer.analysis.mask_picture import draw_mask
from lit_transformer.blocks import BigBird, Causal, Full, PrefixCausal, SlidingWindow
from lit_transformer.blocks.masks import Sites
from lit_transformer.cli.main import main
from lit_transformer.errors import UserError

RECIPE = """
model:
  class_path: LanguageModeling
  network:
    class_path: DecoderOnly
    dims: {d_model: 32, n_layers: 3, n_heads: 2}
    layer:
      - {class_path: Layer, mask: {class_path: And, masks: [Causal, {class_path: SlidingWindow, window: 4}]}}
      - {class_path: Layer, mask: {class_path: And, masks: [Causal, {class_path: SlidingWindow, window: 4}]}}
      - Layer
data: {class_path: LanguageModelingData, block_size: 16}
"""


@pytest.mark.parametrize("length", [1, 3, 64, 100])
def test_density_is_counted_pair_by_pair(length):
    mask = Causal() & SlidingWindow(5)
    sites = Sites(torch.arange(length))
    pairs = mask.allowed(sites.queries(), sites.keys())
    picture = draw_mask(mask, length)
    assert picture.visible == int(pairs.sum())
    assert torch.equal(picture.grid > 0, pairs)
    assert picture.density == pytest.approx(float(pairs.float().mean()))
    assert picture.density <= picture.computed <= 1
    assert draw_mask(Causal(), length).of_causal == 1
    assert draw_mask(Full(), length).flops(8, 2) == 4 * 8 * 2 * length**2


def test_long_rows_are_drawn_from_shares():
    picture = draw_mask(Causal(), 3000)
    assert picture.visible == 3000 * 3001 // 2 and picture.grid.shape == (1000, 1000)
    assert picture.grid[5, 4] == 1 and picture.grid[4, 5] == 0 and picture.grid[5, 5] == pytest.approx(6 / 9)


def test_documents_and_prefix():
    assert draw_mask(Full(), 10, documents=[4, 3]).visible == 16 + 9
    assert draw_mask(PrefixCausal(), 10, prefix=4).visible == 55 + 6
    with pytest.raises(UserError, match="documents: 8, 3"):
        draw_mask(Full(), 10, documents=[8, 3])


def test_text_is_the_pattern():
    assert draw_mask(Causal(), 4).text(8).split("\n") == ["█▄  ", "███▄"]
    assert draw_mask(Causal(), 64).text(4).split("\n") == ["█▒  ", "███▒"]


def test_pictures(tmp_path):
    picture = draw_mask(BigBird(16), 200)
    for kind in ("png", "svg", "txt"):
        picture.save(tmp_path / f"mask.{kind}")
    png = (tmp_path / "mask.png").read_bytes()
    assert png.startswith(b"\x89PNG") and png.endswith(zlib.crc32(b"IEND").to_bytes(4, "big"))
    side = int.from_bytes(png[16:20], "big")
    body = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    assert len(zlib.decompress(body)) == side * (side + 1)
    assert ElementTree.parse(tmp_path / "mask.svg").getroot().tag.endswith("svg")
    assert "BigBird" in (tmp_path / "mask.txt").read_text()
    with pytest.raises(UserError, match="must end in"):
        picture.save(tmp_path / "mask.jpg")


def test_the_verb_draws_named_masks(capsys):
    assert main(["mask", "--mask", "Causal", "--mask", "SlidingWindow", "--window", "2", "--length", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Causal() & SlidingWindow(window=2), 4 tokens\n█▄  \n ▀█▄\n")
    assert "43.75%" in shown and "7 of 16" in shown


def test_the_verb_draws_the_masks_of_a_recipe(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    assert main(["mask", "--config", str(recipe), "--output", str(tmp_path / "m.svg")]) == 0
    shown = capsys.readouterr().out
    assert "stack, layers 0, 1: Causal() & SlidingWindow(window=4), 16 tokens" in shown
    assert "stack, layers 2: Causal(), 16 tokens" in shown
    assert {each.name for each in tmp_path.glob("*.svg")} == {"m-1.svg", "m-2.svg"}


@pytest.mark.parametrize(("words", "said"), [
    ([], "either --config"), (["--mask", "Causal", "--config", "x"], "either --config"),
    (["--mask", "SlidingWindow", "--window", "0"], "mask.window: is 0"), (["--mask", "SlidingWindo"], "SlidingWindow"),
    (["--mask", "SlidingWindow", "--windw", "3"], "window"), (["--mask", "Causal", "--length", "0"], "length: is 0"),
    (["--mask", "Causal", "--output", "x.jpg"], ".png"), (["--mask", "Causal", "--documents", "2,x"], "2,x"),
    (["--mask"], "needs a value"), (["--mask", "{class_path: And, masks: []}"], "mask.masks"),
    (["--config", "no_such_recipe"], "no_such_recipe"), (["--mask", "os.system"], "os.system"),
])  # fmt: skip
def test_mistakes_are_one_line(words, said, capsys):
    assert main(["mask", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error


def test_help_needs_no_torch():
    code = "import sys; from lit_transformer.cli.main import main; main(['mask', '--help']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "example:" in shown and "torch" not in shown.split()
