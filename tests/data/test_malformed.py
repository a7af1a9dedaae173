"""Generated data files with a fault: one line with file and row, or a skip that is counted."""

from pathlib import Path

import pytest

from tests.data.malformed import MalformedFile, malformed_files, outcome

FILES = malformed_files()


def test_there_are_enough() -> None:
    assert len(FILES) >= 200 and len({case.name for case in FILES}) == len(FILES)


@pytest.mark.parametrize("case", FILES[::6], ids=lambda case: case.name)
def test_a_malformed_file_is_one_line(case: MalformedFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not outcome(case, tmp_path, lambda: capsys.readouterr().err)
