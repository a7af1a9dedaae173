"""Checks against constructors, and building without Lightning."""

from collections.abc import Callable

import pytest

from lit_transformer.dims import Dims, SizeError
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly, Network
from lit_transformer.recipe import ImportList, RecipeError, build
from lit_transformer.recipe.allow import library_paths
from lit_transformer.recipe.suggest import nearest
from lit_transformer.vocabulary import Vocabulary

Factory = Callable[[Vocabulary], Network]
SIZES = {"d_model": 16, "n_layers": 1, "n_heads": 2}


def network(**arguments):
    return build(Factory, {"class_path": "DecoderOnly", "dims": SIZES, **arguments})(Vocabulary(size=7, max_len=4))


def test_build_makes_a_factory():
    built = network(
        position="ALiBi", layer=[{"class_path": "Layer", "init_args": {"attention": {"qk_norm": "RMSNorm"}}}]
    )
    assert isinstance(built, DecoderOnly)
    assert type(built.stack.position).__name__ == "ALiBi"


def test_build_takes_what_a_checkpoint_stores():
    stored = {
        "class_path": "lit_transformer.networks.DecoderOnly",
        "init_args": {"dims": {**SIZES, "n_kv_heads": None}, "position": {"class_path": "lit_transformer.blocks.RoPE"}},
    }
    assert isinstance(build(Factory, stored)(Vocabulary(size=7, max_len=4)), DecoderOnly)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dims": {"n_head": 2}}, "dims.n_head: unknown key; did you mean n_heads"),
        ({"n_heads": 2}, "n_heads: unknown key; did you mean dims.n_heads"),
        ({"dims": {"d_model": 1e3}}, "dims.d_model: expected a whole number, got 1000.0; write 1000"),
        ({"dims": {"d_model": "16"}}, "dims.d_model: expected a whole number, got '16'"),
        ({"dims": {"d_model": True}}, "dims.d_model: expected a whole number, got True"),
        ({"dims": {"d_model": None}}, "dims.d_model: is empty, expected a whole number"),
        ({"dims": {"d_model": [16]}}, "dims.d_model: expected a whole number, got a list of 1"),
        ({"dims": {"d_model": {"a": 1}}}, "dims.d_model: expected a whole number, got keys and values (a)"),
        ({"dims": 3}, "dims: expected the fields of Dims, got 3"),
        ({"position": "RoPEE"}, "position: unknown Position 'RoPEE'; did you mean RoPE"),
        ({"position": "Layer"}, "position: unknown Position 'Layer'"),
        ({"position": "lit_transformer.blocks.Layer"}, "is no Position"),
        ({"position": "lit_transformer.blocks.position.Nothing"}, "unknown Position"),
        ({"position": 3}, "position: expected the name of a Position, got 3"),
        ({"position": {"class_path": 3}}, "position: class_path: expected the name of a class, got 3"),
        ({"position": {"class_path": ["RoPE"]}}, "class_path: expected the name of a class"),
        ({"position": {"class_path": "RoPE", "bass": 1}}, "position.bass: unknown key; did you mean base?"),
        ({"layer": [{"dropout": 0.1}, {"norm": "LayerNor"}]}, "layer[1].norm: unknown Norm 'LayerNor'"),
        ({"layer": {"dropout": "high"}}, "layer.dropout: expected a number, got 'high'"),
        ({"vocabulary": {"size": 3}}, "vocabulary: unknown key"),
        ({"dict_kwargs": {"x": 1}}, "takes no further arguments"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError) as caught:
        network(**arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", ["DecoderOnl", "os.system", "subprocess.Popen", 3, [], None, {}, {"class_path": None}]
)
def test_what_is_no_network(config):
    with pytest.raises(RecipeError):
        build(Factory, config)


@pytest.mark.parametrize("config", [object(), {"class_path": "DecoderOnly", 3: 4}, {"a": {1, 2}}])
def test_only_plain_data_is_taken(config):
    with pytest.raises(RecipeError):
        build(Factory, config)


def test_deep_data_is_refused():
    config: dict = {}
    for _ in range(5000):
        config = {"layer": config}
    with pytest.raises(RecipeError, match="levels deep"):
        build(Factory, config)


def test_constructors_keep_their_errors():
    with pytest.raises(SizeError, match="does not divide"):
        build(Factory, {"class_path": "DecoderOnly", "dims": {"d_model": 10, "n_heads": 3}})


def test_sizes_are_one_dataclass():
    assert build(Dims, SIZES) == Dims(**SIZES)


@pytest.mark.parametrize(
    ("name", "candidates", "best"),
    [
        ("n_head", ["n_heads", "d_model"], "n_heads"),
        ("rope", ["RoPE", "ALiBi"], "RoPE"),
        ("heads", ["n_heads", "d_model"], "n_heads"),
        ("max_len", ["dims.max_len", "x"], "dims.max_len"),
    ],
)
def test_did_you_mean(name, candidates, best):
    assert nearest(name, candidates)[0] == best


def test_nothing_near_suggests_nothing():
    assert nearest("zzz", ["n_heads", "d_model"]) == []


@pytest.mark.parametrize(
    "package", ["os", "subprocess", "torch", "lightning", "jsonargparse", "a b", "../x", "", "builtins.x"]
)
def test_allow_takes_packages_of_your_own(package):
    with pytest.raises(UserError, match="--allow"):
        ImportList([package])


def test_the_list_is_closed():
    imports = ImportList()
    for path in ("os.system", "torch.hub.load", "lightning.pytorch.callbacks.LambdaCallback", "torch.optim", "mine.X",
                 "lit_transformer.cli.main.main", "lit_transformer.recipe.build", "torch.load", "x", "", "a..b"):  # fmt: skip
        assert not imports.allows(path), path
    assert imports.allows("lit_transformer.blocks.position.RoPE") and imports.allows("torch.optim.AdamW")
    assert ImportList(["mine"]).allows("mine.part.X") and not ImportList(["mine"]).allows("mine2.X")


def test_every_library_class_is_listed_under_both_names():
    import importlib.util

    for path in sorted(library_paths()):
        if path.startswith("schedulefree.") and importlib.util.find_spec("schedulefree") is None:
            continue  # an extra
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        assert f"{cls.__module__}.{cls.__qualname__}" in library_paths(), path


def test_a_class_that_takes_another_ones_name_while_running_changes_nothing():
    def taken() -> type:
        return type("DecoderOnly", (DecoderOnly,), {"__module__": DecoderOnly.__module__})

    other = taken()
    assert type(network()) is DecoderOnly is not other


@pytest.mark.parametrize("base", ["Mask", "lit_transformer.blocks.masks.base.Mask"])
def test_a_base_is_no_part(base):
    with pytest.raises(RecipeError, match="Mask' (is abstract|may not be named)"):
        network(mask=base)
