"""Strangers' checkpoints run nothing, whatever opens them."""

import sys
from pathlib import Path

import pytest

from tests.checkpoints import attacks
from tests.checkpoints.hostile import SENTINEL


@pytest.fixture
def _as_before() -> object:
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop(SENTINEL, None)


@pytest.mark.usefixtures("_as_before")
def test_hostile_checkpoints_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    rows = list(attacks.attack(tmp_path, {"generate": attacks.opening_verbs()["generate checkpoint"]}))
    assert len({row["file"] for row in rows}) >= 40
    assert sum(row["dangerous"] for row in rows) >= 8, "the sentinel fires where files are opened without care"
    for row in rows:
        assert not row["fired"] and not row["events"], row
        lines = [line for line in row["said"].splitlines() if line.startswith("lit-transformer: ")]
        assert row["code"] in (0, 2) and len(lines) == (row["code"] == 2) and "Traceback" not in row["said"], row


def test_the_verbs_that_open_checkpoints_are_found() -> None:
    found = attacks.opening_verbs()
    assert found.keys() >= {
        "fit resume", "fit init_from", "validate checkpoint", "test checkpoint", "predict checkpoint",
        "generate checkpoint", "checkpoint inspect", "checkpoint verify",
    }  # fmt: skip


@pytest.mark.usefixtures("_as_before")
def test_what_attacks_use_does_its_work_on_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a hostile file would be refused for another reason: a verb that fails here needs a line in ``NEEDS``."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.chdir(tmp_path)
    recipe, _ = attacks.prepare(tmp_path)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for name, words in attacks.opening_verbs().items():
        argv, _ = attacks.filled(words, last, recipe, tmp_path)
        code, said, events = attacks.in_process(lambda argv=argv: attacks.counted(argv))
        # a verb of another task; a verb whose extra is not here
        read = (
            code == 0
            or "the model was not trained to" in said
            or (name.startswith("evaluate") and "pip install" in said)
        )
        assert read and not events, (name, argv, said)


@pytest.mark.usefixtures("_as_before")
def test_the_hook_counts_an_import(tmp_path: Path) -> None:
    from tests.checkpoints.hostile import plant

    mark = plant(tmp_path)

    def careless() -> object:
        events: list[str] = []
        sys.addaudithook(lambda event, a: events.append(str(a[0])) if event == "import" and a[0] == SENTINEL else None)
        __import__(SENTINEL)
        return events

    assert attacks.in_process(careless) == [SENTINEL] and mark.exists()
