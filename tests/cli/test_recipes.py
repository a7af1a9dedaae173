"""``recipes``: list, show, copy, validate."""

import pytest
import yaml

from lit_transformer.cli.arguments import Arguments
from lit_transformer.cli.resolution import Resolution
from lit_transformer.recipe import find_recipe, read_recipe, shipped_recipes

SHIPPED = [recipe.name for recipe in shipped_recipes()]


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two shipped recipes of our own."""
    root = tmp_path / "shipped"
    (root / "overlays").mkdir(parents=True)
    (root / "task").mkdir()
    (root / "task" / "small.yaml").write_text("# A small one.\nmodel: X\n")
    (root / "overlays" / "big.yaml").write_text("# Makes it big.\nmodel.size: 3\n")
    monkeypatch.setattr("lit_transformer.recipe.shipped.recipes_folder", lambda: root)
    monkeypatch.chdir(tmp_path)
    return root


def test_list(command, shipped):
    code, out, err = command("recipes", "list")
    assert code == 0 and not err
    assert [line.split() for line in out.splitlines() if line.startswith(" ")] == [
        ["task/small", "A", "small", "one."], ["overlays/big", "Makes", "it", "big."]]  # fmt: skip


@pytest.mark.parametrize("name", ["task/small", "small", "task/small.yaml", "recipes/task/small.yaml"])
def test_show(command, shipped, name):
    assert command("recipes", "show", name) == (0, "# A small one.\nmodel: X\n", "")


def test_near_names_are_suggested(command, shipped):
    code, _, err = command("recipes", "show", "task/smal")
    assert code == 2 and "did you mean task/small?" in err


def test_copy_overwrites_nothing(command, shipped, tmp_path):
    assert command("recipes", "copy", "small", "mine")[:2] == (0, "mine/small.yaml\n")
    code, _, err = command("recipes", "copy", "small", "mine")
    assert code == 2 and "exists and is not overwritten" in err
    assert command("recipes", "copy", "small", "mine/other.yaml")[0] == 0
    assert (tmp_path / "mine/other.yaml").read_text() == "# A small one.\nmodel: X\n"


def test_copy_where_nothing_may_be_written(command, shipped):
    code, _, err = command("recipes", "copy", "small", "/proc/x/y.yaml")
    assert code == 3 and err.count("\n") == 1


def test_a_file_comes_before_a_shipped_recipe(command, shipped, tmp_path):
    (tmp_path / "small").write_text("mine: 1\n")
    assert command("recipes", "show", "small")[1] == "mine: 1\n"


def test_validate(command, folder):
    code, out, err = command("recipes", "validate", "tiny.yaml")
    assert (code, out) == (0, "tiny.yaml: valid\n"), err


def test_validate_says_every_mistake(command, folder):
    text = (folder / "tiny.yaml").read_text()
    (folder / "bad.yaml").write_text(text.replace("n_heads", "n_head").replace("schedule", "shedule").replace(
        "validate_every: 2", "validate_every: two"))  # fmt: skip
    code, out, err = command("recipes", "validate", "bad.yaml")
    assert code == 2 and not out
    assert [line.split(": ")[1:3] for line in err.splitlines()] == [
        ["bad.yaml:7", "model.network.dims.n_head"],
        ["bad.yaml:10", "model.shedule"],
        ["bad.yaml:22", "trainer.validate_every"],
    ]


def test_resolved_is_a_recipe_that_means_the_same(command, folder):
    code, out, err = command("recipes", "show", "--resolved", "tiny.yaml")
    assert code == 0, err
    data = yaml.safe_load(out)
    assert data["trainer"]["validate_every"] == 2 and "max_epochs" not in data["trainer"]
    assert "vocabulary" not in data["model"]["init_args"] and "max_steps" not in data["model"]["init_args"]
    (folder / "resolved.yaml").write_text(out)
    assert command("recipes", "show", "--resolved", "resolved.yaml")[1] == out
    assert command("fit", "--config", "resolved.yaml", "--print_config")[1] == out


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_has_a_description_and_is_well_formed(name):
    path, shown = find_recipe(name)
    read_recipe(path, shown)
    assert next(recipe for recipe in shipped_recipes() if recipe.name == name).description


def test_a_list_of_layers_is_resolved_to_data(command, folder):
    (folder / "pattern.yaml").write_text(
        "model.network.layer: [Layer, {class_path: Layer, dropout: 0.1, mask: Causal}]"
    )
    code, out, err = command("recipes", "show", "--resolved", "tiny.yaml", "pattern.yaml")
    layers = yaml.safe_load(out)["model"]["init_args"]["network"]["init_args"]["layer"]
    assert [layer["class_path"].rpartition(".")[2] for layer in layers] == ["Layer", "Layer"], err
    assert layers[1]["init_args"]["dropout"] == 0.1


@pytest.mark.parametrize("name", [n for n in SHIPPED if not n.startswith("overlays/")])
def test_every_shipped_recipe_is_valid(name, command):
    code, _, err = command("recipes", "validate", name)
    assert code == 0, err


@pytest.mark.parametrize("name", [n for n in SHIPPED if n.startswith("overlays/")])
def test_every_overlay_goes_on_a_recipe(name):
    if "quickstart" not in SHIPPED:
        pytest.skip("no quickstart yet")
    rows = name == "overlays/tiny_rows" or name.startswith("overlays/classification/")
    pairs = name.startswith("overlays/architecture/")
    base = "classification/ag_news_10k" if rows else "translation/tatoeba_en_de" if pairs else "quickstart"
    Resolution(Arguments("fit", configs=[base, name]).recipe())
