"""Whatever a file is, reading it is right or one line."""

from pathlib import Path

import pytest
import torch

from lit_transformer.checkpoints import find_newest, read, read_footer, reading, resolve, verify, write
from lit_transformer.checkpoints.footer import Footer
from lit_transformer.errors import EnvironmentFault, UserError
from tests.checkpoints.files import flipped, good, payload, truncated, wrong_kinds


def test_wrong_kinds_of_file_are_one_line(tmp_path: Path) -> None:
    kinds = list(wrong_kinds(tmp_path))
    assert len(kinds) >= 20
    for kind, path in kinds:
        for call in (read, verify, read_footer):
            with pytest.raises((UserError, EnvironmentFault)) as caught:
                call(path)
            message = str(caught.value)
            assert "\n" not in message and message.startswith(str(path)), (kind, message)
            assert len(message) < 500, kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "is empty"), ("text", "text file"), ("pickle", "pickle"), ("safetensors", "safetensors"),
        ("bare state dict", "without lit-transformer's footer"), ("cut in half", "cut short"), ("folder", "folder"),
        ("zip of text", "zip archive of something else"), ("missing", "no such checkpoint"), ("gzip", "gzip"),
        ("bytes added", "damaged"),
    ],
)  # fmt: skip
def test_the_line_says_what_the_file_is(tmp_path: Path, kind: str, words: str) -> None:
    path = dict(wrong_kinds(tmp_path))[kind]
    with pytest.raises((UserError, EnvironmentFault), match=words):
        read(path)


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    data = good(tmp_path / "good.ckpt").read_bytes()
    path = tmp_path / "bad.ckpt"
    for at, damaged in [*flipped(data, 150), *truncated(data, 50)]:
        path.write_bytes(damaged)
        with pytest.raises(UserError) as caught:
            verify(path)
        assert "\n" not in str(caught.value), at


def test_a_flipped_bit_goes_unnoticed_without_the_digest(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The test above fails when the guard is taken out."""
    data = good(tmp_path / "good.ckpt", size=40_000).read_bytes()
    path = tmp_path / "bad.ckpt"
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    path.write_bytes(damaged)
    monkeypatch.setattr(reading, "_verified", reading._footer)
    assert not torch.equal(read(path)["state_dict"]["network.a"], torch.full((40_000,), 7.0))


def test_every_bit_of_the_footer_counts(tmp_path: Path) -> None:
    data = bytearray(good(tmp_path / "good.ckpt").read_bytes())
    path = tmp_path / "bad.ckpt"
    for at in range(len(data) - 170, len(data)):
        bit = 1 << at % 8
        data[at] ^= bit
        path.write_bytes(data)
        with pytest.raises(UserError):
            verify(path)
        data[at] ^= bit


@pytest.mark.parametrize(
    "address", ["http://x.org/a.ckpt", "https://x.org/a.ckpt", "s3://b/a.ckpt", "file:///a.ckpt", "HTTP://x/a"]
)
def test_addresses_are_refused(address: str) -> None:
    for call in (read, verify, read_footer):
        with pytest.raises(UserError, match="is an address"):
            call(address)


def test_an_environment_that_forces_unsafe_loading_is_refused(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = good(tmp_path / "last.ckpt")
    for value in ("1", "true", "Y", " yes "):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
        with pytest.raises(UserError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
            read(path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    read(path)


def test_parts_of_different_steps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.ckpt"
    mixed = payload(7)
    mixed["run_state"] = payload(8)["run_state"]
    write(path, mixed, 7)
    with pytest.raises(UserError, match="different steps .*run_state 8"):
        read(path)
    write(path, payload(7), 8)
    with pytest.raises(UserError, match="file 8"):
        read(path)
    for part in ("ema",):
        write(path, payload(7) | {part: {"step": 6}}, 7)
        with pytest.raises(UserError, match=f"{part} 6"):
            read(path)


def test_a_content_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for content in ({"a": 1}, {"state_dict": 3}, {}):
        write(tmp_path / "x.ckpt", content, 0)
        with pytest.raises(UserError, match="no 'state_dict'"):
            read(tmp_path / "x.ckpt")


def test_a_newer_format_says_so(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    path = good(tmp_path / "x.ckpt")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"format=0001", b"format=0002"))
    with pytest.raises(UserError, match="format 2"):
        verify(path)


def test_the_newest_that_verifies_is_found_and_the_others_are_named(tmp_path: Path) -> None:
    run = tmp_path / "20260101-000000" / "checkpoints"
    best, last = good(run / "best.ckpt", 10), good(run / "last.ckpt", 20)
    found = find_newest(tmp_path / "20260101-000000")
    assert found is not None and found.path == last and found.step == 20 and found.skipped == ()
    data = bytearray(last.read_bytes())
    data[500] ^= 1
    last.write_bytes(data)
    found = find_newest(run)
    assert found is not None and found.path == best and found.step == 10
    assert len(found.skipped) == 1 and "last.ckpt" in found.skipped[0] and "last.ckpt" in str(found)
    best.write_bytes(b"")
    with pytest.raises(UserError, match="none of its checkpoints verifies.*last.ckpt.*best.ckpt|best.ckpt.*last.ckpt"):
        find_newest(run)
    good(tmp_path / "20260102-000000" / "checkpoints" / "last.ckpt", 5)
    found = find_newest(tmp_path)
    assert found is not None and found.step == 5, "the most recent run comes first"


def test_nothing_to_find(tmp_path: Path) -> None:
    assert find_newest(tmp_path) is None
    with pytest.raises(UserError, match="holds no checkpoint"):
        resolve(tmp_path)


def test_a_folder_means_its_best_or_newest(tmp_path: Path) -> None:
    best, last = good(tmp_path / "checkpoints/best.ckpt", 10), good(tmp_path / "checkpoints/last.ckpt", 20)
    assert resolve(tmp_path) == best and resolve(tmp_path, "last.ckpt") == last
    best.write_bytes(b"x")
    assert resolve(tmp_path) == last
    assert resolve(last) == last


def test_a_footer_is_what_it_spells() -> None:
    footer = Footer(3, 4, "0" * 64)
    assert Footer.parse(footer.to_bytes()) == footer
    assert Footer.parse(footer.to_bytes()[:-1] + b" ") is None
