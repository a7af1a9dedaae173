"""Every shipped overlay of a position or mask builds a network that runs."""

from collections.abc import Callable

import pytest
import torch

from lit_transformer.dims import SizeError
from lit_transformer.networks import Network
from lit_transformer.recipe import build, find_recipe, merge_recipes, read_recipe, read_text, shipped_recipes
from lit_transformer.recipe.tree import plain
from lit_transformer.vocabulary import Vocabulary

BASE = """
model:
  network:
    class_path: DecoderOnly
    dims: {d_model: 32, n_layers: 1, n_heads: 2}
    position: {class_path: RoPE, base: 5000}
"""
OVERLAYS = {each.name: each for each in shipped_recipes() if each.name.split("/")[1:-1] in (["position"], ["mask"])}


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay(name):
    path, shown = find_recipe(name)
    overlay = read_recipe(path, shown)
    changed = plain(overlay)["model"]["network"]
    assert set(changed) == {name.split("/")[1]} or (name.endswith("shaw") and set(changed) == {"position", "kernel"})
    assert OVERLAYS[name].description
    config = plain(merge_recipes([read_text(BASE, "base.yaml"), overlay]))["model"]["network"]
    factory = build(Callable[[Vocabulary], Network], config)
    if "for encoders" in OVERLAYS[name].description:
        with pytest.raises(SizeError, match="lets tokens see later ones"):
            factory(Vocabulary(11, max_len=12))
        return
    network = factory(Vocabulary(11, max_len=12))
    assert network(torch.randint(0, 11, (2, 12))).logits.isfinite().all()
