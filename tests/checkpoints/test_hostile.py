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
    rows = list(attacks.attack(tmp_path, ["generate"]))
    assert len({row["file"] for row in rows}) >= 40
    assert sum(row["dangerous"] for row in rows) >= 8, "the sentinel fires where files are opened without care"
    for row in rows:
        assert not row["fired"] and not row["events"], row
        lines = [line for line in row["said"].splitlines() if line.startswith("lit-transformer: ")]
        assert row["code"] in (0, 2) and len(lines) == (row["code"] == 2) and "Traceback" not in row["said"], row


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
