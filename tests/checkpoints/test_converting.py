"""One set of weights in every form: the same hash, the cast said, and nothing that runs code."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from lit_transformer.checkpoints.averaging import average_checkpoints
from lit_transformer.checkpoints.converting import convert, digest, read_any
from lit_transformer.checkpoints.loading import load_network
from lit_transformer.checkpoints.reading import read
from lit_transformer.checkpoints.writing import write
from lit_transformer.cli.main import main
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly
from lit_transformer.vocabulary import Vocabulary

NETWORK = {"class_path": "DecoderOnly", "init_args": {"dims": {"d_model": 16, "n_layers": 2, "n_heads": 2}}}


def content(seed: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    network = DecoderOnly(Vocabulary(20, max_len=8), Dims(16, 2, 2))
    network.initialise(seed)
    return {
        "global_step": 7,
        "state_dict": {f"network.{name}": value for name, value in network.to(dtype).state_dict().items()},
        "hyper_parameters": {"class_path": "LanguageModeling", "init_args": {"network": NETWORK}},
        "vocabulary": {"size": 20, "max_len": 8},
        "optimizer_states": [{}],
    }


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    write(tmp_path / "plain.ckpt", content(), 7)
    return tmp_path / "plain.ckpt"


def test_the_same_hash_along_every_path(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = digest(content()["state_dict"])
    path = plain
    for name in ("a.safetensors", "parts", "b.ckpt", "more_parts", "c.safetensors", "d.ckpt"):
        assert main(["checkpoint", "convert", str(path), "--output", str(tmp_path / name)]) == 0
        assert f"weights sha256 {wanted}" in capsys.readouterr().out
        path = tmp_path / name
        assert digest(read_any(path)["state_dict"]) == wanted
    loaded = load_network(path)  # the last one can be used alone, and what was tied is
    assert loaded.step == 7 and loaded.network.head.weight is loaded.network.embedding.weight
    assert main(["checkpoint", "convert", str(plain), "--output", str(path)]) == 2  # nothing is written over


def test_casts_are_said(plain: Path, tmp_path: Path) -> None:
    low = convert(plain, tmp_path / "low.safetensors", dtype="bfloat16")
    assert "cast from float32 to bfloat16: rounded, by " in low.cast
    high = convert(low.path, tmp_path / "high.ckpt", dtype="float32")
    assert high.cast == "cast from bfloat16 to float32: exact" and high.digest != low.digest
    again = convert(high.path, tmp_path / "again", dtype="bfloat16")
    assert again.digest == low.digest and again.cast == "cast from float32 to bfloat16: exact"
    assert convert(low.path, tmp_path / "kept").cast == ""


def test_parts_of_another_program(tmp_path: Path) -> None:
    """As Lightning writes them: names behind ``state_dict.``, the rest in meta.pt."""
    state = content()["state_dict"]
    dcp.save({f"state_dict.{name}": value for name, value in state.items()}, checkpoint_id=tmp_path / "of_others",
             no_dist=True)  # fmt: skip
    torch.save({"global_step": 3, "vocabulary": {"size": 20}}, tmp_path / "of_others" / "meta.pt")
    done = convert(tmp_path / "of_others", tmp_path / "one.ckpt")
    assert done.digest == digest(state) and read(done.path)["vocabulary"] == {"size": 20}
    assert read(done.path)["global_step"] == 3


def test_averages_of_every_form(plain: Path, tmp_path: Path) -> None:
    write(tmp_path / "other.ckpt", {**content(2), "global_step": 9}, 9)
    convert(tmp_path / "other.ckpt", tmp_path / "parts")
    average_checkpoints([plain, tmp_path / "other.ckpt"], tmp_path / "one.ckpt")
    average_checkpoints([plain, tmp_path / "parts"], tmp_path / "two.safetensors")
    assert digest(read_any(tmp_path / "one.ckpt")["state_dict"]) == digest(
        read_any(tmp_path / "two.safetensors")["state_dict"]
    )


class Harmful:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


def test_damage_and_harm_are_refused(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert(plain, "parts")
    part = next(Path("parts").glob("*.distcp"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(UserError, match=f"its part {part.name} is damaged"):
        convert("parts", "x.ckpt")
    part.unlink()
    with pytest.raises(UserError, match=f"its part {part.name} is missing"):
        convert("parts", "x.ckpt")
    Path("parts/lit-transformer.json").unlink()
    with pytest.raises(UserError, match=r"its manifest lit-transformer.json is missing"):
        convert("parts", "x.ckpt")
    Path("parts/meta.pt").unlink()  # as another program would leave it
    with pytest.raises(UserError, match="claims more than"):
        convert("parts", "x.ckpt")
    Path("parts/.metadata").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match="it would call pathlib"):
        convert("parts", "x.ckpt")
    assert not Path("harm").exists()
    Path("bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json}     ")
    with pytest.raises(UserError, match="no safetensors file"):
        convert("bad.safetensors", "x.ckpt")
    Path("empty").mkdir()
    with pytest.raises(UserError, match="folder without an index"):
        convert("empty", "x.ckpt")
    with pytest.raises(UserError, match="neither .safetensors, .ckpt nor a folder"):
        convert(plain, "x.bin")


def test_deepspeed_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "zero"
    (folder / "global_step3").mkdir(parents=True)
    (folder / "latest").write_text("global_step3")
    (folder / "global_step3" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"")
    with pytest.raises(UserError, match="add --trust"):
        convert(folder, tmp_path / "x.ckpt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"lit-transformer\[deepspeed\]"):
        convert(folder, tmp_path / "x.ckpt", trusted=True)
