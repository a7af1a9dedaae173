"""The report's folder, damaged or somebody else's: one line each."""

from pathlib import Path

import pytest

from lit_transformer.errors import UserError
from lit_transformer.studies.report import write_report


@pytest.mark.parametrize("text", ["3", "null", "[]", '"x"', "{}", "{", None])
def test_what_is_no_study_is_said(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match=r"study\.json: (is no study|cannot be read|not there)") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()
