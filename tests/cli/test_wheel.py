"""The wheel: everything a user needs is in it, the recipes too."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_setup_names_every_package():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    named = set(settings["options"]["packages"].split()) - {"lit_transformer.recipes"}
    there = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in (ROOT / "lit_transformer").rglob("__init__.py")}
    assert named == there, "edit options.packages in setup.cfg"


@pytest.mark.slow
def test_recipes_and_fit_from_an_installed_wheel(tmp_path, text_files):
    source = tmp_path / "source"  # built from a copy: the build leaves files behind
    source.mkdir()
    for name in ("lit_transformer", "recipes", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run = dict(capture_output=True, text=True)
    built = subprocess.run(
        [*pip, "wheel", "--no-index", "--no-build-isolation", "--no-deps", "-w", str(tmp_path / "wheel"), str(source)],
        **run,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    site = tmp_path / "site"
    installed = subprocess.run([*pip, "install", "--no-index", "--no-deps", "--target", str(site), str(wheel)], **run)
    assert installed.returncode == 0, installed.stderr[-3000:]
    work = tmp_path / "work"
    work.mkdir()
    for file in text_files.iterdir():
        (work / file.name).symlink_to(file)
    from tests.cli.conftest import RECIPE

    (work / "tiny.yaml").write_text(RECIPE.replace("max_steps: 4", "max_steps: 2"))
    env = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def program(*argv):
        return subprocess.run([sys.executable, "-m", "lit_transformer", *argv], cwd=work, env=env, **run)

    listed = program("recipes", "list")
    shipped = {p.relative_to(ROOT / "recipes").with_suffix("").as_posix() for p in (ROOT / "recipes").rglob("*.yaml")}
    shipped = {name for name in shipped if not name.startswith("studies/")}
    assert shipped and all(f"  {name} " in listed.stdout for name in shipped), listed.stdout + listed.stderr
    name = sorted(shipped)[0]
    copied = program("recipes", "copy", name, "mine.yaml")
    assert copied.returncode == 0 and (work / "mine.yaml").read_bytes() == (ROOT / f"recipes/{name}.yaml").read_bytes()
    fitted = program("fit", "--config", "tiny.yaml")
    assert fitted.returncode == 0, fitted.stderr[-3000:]
    assert len(list(work.glob("runs/tiny/*/checkpoints/best.ckpt"))) == 1
    assert (site / "bin" / "lit-transformer").exists()
