"""Hostile recipes: nothing that they name is imported, nothing runs."""

import os
import subprocess
import sys

import pytest

from lit_transformer.cli.arguments import Arguments
from lit_transformer.cli.resolution import Resolution
from lit_transformer.errors import UserError
from lit_transformer.recipe import build
from tests.cli.conftest import RECIPE
from tests.recipe.hostile import SLOTS, names

RUNS_CODE = {
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "urllib.Request",
}


class Watch:
    """Counts imports of modules that are not loaded yet, and events that mean that code of the recipe's choice runs."""

    def __init__(self) -> None:
        self.on = False
        self.imports: list[str] = []
        self.events: list[str] = []
        sys.addaudithook(self.hear)  # stays for good, so it is switched

    def hear(self, event: str, args: tuple) -> None:
        if self.on and event in RUNS_CODE:
            self.events.append(event)

    def find_spec(self, name, path=None, target=None):
        if self.on:
            self.imports.append(name)
        return None

    def __enter__(self):
        self.imports, self.events, self.on = [], [], True
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *rest):
        self.on = False
        sys.meta_path.remove(self)


WATCH = Watch()

NAMES = names("hostile_module")


@pytest.fixture
def trap(folder):
    """A module in the working directory that says when it is imported."""
    (folder / "hostile_module.py").write_text("open('pwned', 'w')\nclass Evil: pass\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("hostile_module", None)


def test_the_watch_sees(trap):
    with WATCH as seen:
        __import__("hostile_module")
        os.system("true")
        subprocess.Popen(["true"]).wait()
    assert "hostile_module" in seen.imports and {"os.system", "subprocess.Popen"} <= set(seen.events)
    assert (trap / "pwned").exists()


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory):
    """Everything that any recipe needs is imported before the watch looks."""
    path = tmp_path_factory.mktemp("warm") / "tiny.yaml"
    path.write_text(RECIPE + "  strategy: DDPStrategy\n  profiler: PyTorchProfiler\n")
    Resolution(Arguments("fit", configs=[str(path)]).recipe())


@pytest.mark.parametrize("slot", SLOTS)
def test_nothing_that_a_hostile_recipe_names_is_imported(slot, trap):
    key, form = SLOTS[slot]
    for i, name in enumerate(NAMES):
        if slot == "free arguments" and not name.startswith("{"):
            continue  # text, which stays text
        path = trap / f"hostile{i}.yaml"
        if slot == "the task":
            path.write_text(RECIPE[: RECIPE.index("model:")] + f"model: {name}\n" + RECIPE[RECIPE.index("data:") :])
            arguments = Arguments("fit", configs=[str(path)])
        else:
            path.write_text(f"{key}: {form.format(name)}\n")
            arguments = Arguments("fit", configs=["tiny.yaml", str(path)])
        before = set(sys.modules)
        with WATCH as seen:
            with pytest.raises(UserError) as caught:
                Resolution(arguments.recipe())
        named = [m for m in seen.imports if m.split(".")[0] in ("hostile_module", "turtle", "this", "antigravity")]
        named += [m for m in seen.imports if m.endswith("hostile_module")]
        allowed_parent = "lit_transformer.data" in name
        assert not seen.events and (allowed_parent or not named), (name, seen.imports)
        assert {m for m in set(sys.modules) - before if "hostile" in m or m == "turtle"} == set()
        assert not (trap / "pwned").exists()
        assert "\n" not in str(caught.value)


def test_the_command_refuses_too(trap, command):
    (trap / "hostile.yaml").write_text("model.network.position: {class_path: hostile_module.Evil}\n")
    code, _, err = command("fit", "--config", "tiny.yaml", "--config", "hostile.yaml")
    assert code == 2 and "run with --allow hostile_module" in err and not (trap / "pwned").exists()


@pytest.mark.parametrize("name", NAMES[:10])
def test_plain_data_of_a_checkpoint_is_no_way_in(name, trap):
    import yaml

    from lit_transformer.networks import Network

    with WATCH as seen, pytest.raises(UserError):
        build(Network, yaml.safe_load(name))
    assert not seen.events and not (trap / "pwned").exists()


def test_jsonargparse_itself_is_closed(trap):
    """The second lock: what the checks before it might miss."""
    from jsonargparse import ArgumentError, ArgumentParser
    from lightning.pytorch import Callback

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callback", type=Callback)
    for path in ("hostile_module.Evil", "lightning.pytorch.callbacks.LambdaCallback", "turtle.Turtle"):
        with WATCH as seen, pytest.raises(ArgumentError):
            parser.parse_object({"callback": {"class_path": path}})
        assert "hostile_module" not in seen.imports and "turtle" not in seen.imports
    assert parser.parse_object({"callback": {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}})


def test_allow_opens_one_package_for_one_command(trap, command):
    (trap / "my_package.py").write_text(
        "from lit_transformer.blocks import RoPE\nclass Mine(RoPE):\n    'Mine.'\n"
    )  # fmt: skip
    (trap / "mine.yaml").write_text("model.network.position: my_package.Mine\n")
    configs = ["tiny.yaml", "mine.yaml"]
    assert command("recipes", "validate", *configs)[0] == 2
    code, _, err = command("recipes", "validate", *configs, "--allow", "my_package")
    assert code == 0, err
    assert command("recipes", "validate", *configs)[0] == 2
    sys.modules.pop("my_package")


def test_a_string_value_is_never_read_as_a_file(trap, command):
    """jsonargparse opens a file that has the name of a value; ours must not."""
    (trap / "Secret").write_text("class_path: lightning.pytorch.callbacks.LearningRateMonitor\n")
    code, _, err = command("fit", "--config", "tiny.yaml", "--trainer.callbacks", "[Secret]", "--print_config")
    assert code == 2 and "unknown Callback 'Secret'" in err
