"""Overlays: what wins, what stays, what goes."""

import pytest

from lit_transformer.recipe import RecipeError, merge_recipes, read_text
from lit_transformer.recipe.tree import find_suffix, locate, plain

BASE = """
model:
  class_path: LanguageModeling
  init_args:
    network:
      class_path: DecoderOnly
      dims: {d_model: 8, n_heads: 2}
      position: {class_path: RoPE, init_args: {base: 5.0}}
trainer:
  max_steps: 10
  callbacks: [EarlyStopping]
"""


def merged(*overlays):
    return plain(merge_recipes(read_text(text, f"{i}.yaml") for i, text in enumerate((BASE, *overlays))))


def test_mappings_merge_key_by_key():
    result = merged("trainer: {max_steps: 20}")
    assert result["trainer"] == {"max_steps": 20, "callbacks": ["EarlyStopping"]}


@pytest.mark.parametrize(
    "overlay",
    [
        "model: {network: {dims: {d_model: 16}}}",
        "model: {init_args: {network: {init_args: {dims: {d_model: 16}}}}}",
        "model.network.dims.d_model: 16",
        "model.init_args.network: {dims.d_model: 16}",
    ],
)
def test_init_args_may_be_skipped_and_dots_nest(overlay):
    dims = merged(overlay)["model"]
    dims = dims.get("network", dims.get("init_args", {}).get("network"))["dims"]
    assert dims == {"d_model": 16, "n_heads": 2}


def test_another_class_starts_afresh():
    assert merged("model.network.position: ALiBi")["model"]["network"]["position"] == "ALiBi"
    result = merged("model.network.position: {class_path: Sinusoidal, base: 3}")
    assert result["model"]["network"]["position"] == {"class_path": "Sinusoidal", "base": 3}


def test_the_same_class_keeps_its_arguments():
    full = "lit_transformer.blocks.position.RoPE"
    for overlay in ("{class_path: RoPE, share: 0.5}", f"{{class_path: {full}, share: 0.5}}", "{share: 0.5}"):
        position = merged(f"model.network.position: {overlay}")["model"]["network"]["position"]
        assert position["base"] == 5.0 and position["share"] == 0.5
    assert merged("model.network.position: RoPE")["model"]["network"]["position"]["base"] == 5.0


def test_arguments_over_a_bare_name():
    result = merged("model.network.position: ALiBi", "model.network.position: {slope: 1}")
    assert result["model"]["network"]["position"] == {"class_path": "ALiBi", "slope": 1}


def test_lists_are_replaced_and_plus_appends():
    assert merged("trainer.callbacks: [A]")["trainer"]["callbacks"] == ["A"]
    assert merged("trainer: {callbacks+: [A, B]}")["trainer"]["callbacks"] == ["EarlyStopping", "A", "B"]
    assert merged("trainer.callbacks+: A", "trainer.callbacks+: {class_path: B}")["trainer"]["callbacks"] == [
        "EarlyStopping", "A", {"class_path": "B"}]  # fmt: skip
    assert merged("trainer.callbacks: null", "trainer.callbacks+: A")["trainer"]["callbacks"] == ["A"]


def test_null_replaces():
    assert merged("trainer.callbacks: null")["trainer"]["callbacks"] is None


@pytest.mark.parametrize("text", ["a.b: 1\na: {b: 2}", "a: {b: 1, init_args: {b: 2}}", "a: 1\na.b: 2"])
def test_said_twice_by_different_spellings(text):
    with pytest.raises(RecipeError, match="given twice"):
        merge_recipes([read_text(text, "r.yaml")])


@pytest.mark.parametrize("key", [".a", "a.", "a..b", "'.'"])
def test_dots_around_nothing(key):
    with pytest.raises(RecipeError, match="is not a key"):
        merge_recipes([read_text(f"{key}: 1", "r.yaml")])


def test_every_value_knows_its_file_and_line():
    tree = merge_recipes([read_text(BASE, "base.yaml"), read_text("\ntrainer:\n  max_steps: 5\n", "over.yaml")])
    mark, _ = locate(tree, "trainer.max_steps")
    assert (mark.file, mark.line) == ("over.yaml", 3)
    mark, _ = locate(tree, "trainer.callbacks")
    assert (mark.file, mark.line) == ("base.yaml", 11)
    mark, key = find_suffix(tree, "dims.n_heads")
    assert (mark.file, mark.line, key) == ("base.yaml", 7, "model.network.dims.n_heads")
