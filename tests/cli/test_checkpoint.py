"""``lit-transformer checkpoint``."""

from pathlib import Path
from typing import Any

import pytest

from lit_transformer.cli.main import main
from tests.checkpoints.files import good


def test_verify_prints_a_line_a_file_and_the_worst_code(tmp_path: Path, capsys: Any) -> None:
    good(tmp_path / "run/checkpoints/best.ckpt", 3)
    last = good(tmp_path / "run/checkpoints/last.ckpt", 5)
    assert main(["checkpoint", "verify", str(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("good, step" in line for line in lines)
    last.write_bytes(last.read_bytes()[:-1])
    assert main(["checkpoint", "verify", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().out
    assert "last.ckpt: is damaged" in said and "best.ckpt: good, step 3" in said


def test_inspect_says_what_is_inside(tmp_path: Path, capsys: Any) -> None:
    assert main(["checkpoint", "inspect", str(good(tmp_path / "x.ckpt", 1234))]) == 0
    said = capsys.readouterr().out
    assert "step               1,234" in said and "4,009 in 2 tensors (float32)" in said


@pytest.mark.parametrize("action", ["inspect", "verify"])
def test_mistakes_are_one_line(tmp_path: Path, capsys: Any, action: str) -> None:
    for argument, words in (("http://x/y.ckpt", "address"), (str(tmp_path), "no checkpoint"), ("none.ckpt", "no such")):
        assert main(["checkpoint", action, argument]) == 2
        said = capsys.readouterr()
        assert len((said.out + said.err).strip().splitlines()) <= 2 and words in said.out + said.err
    assert main(["checkpoint"]) == 2 and main(["checkpoint", "verfy", "x"]) == 2
    assert "verify" in capsys.readouterr().err
