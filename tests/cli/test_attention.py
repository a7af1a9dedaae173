"""``lit-transformer attention`` as a user meets it."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from lit_transformer.cli.main import main
from lit_transformer.data.tokenizers import ByteLevelBPE, Character
from tests.cli.test_generate import save


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    save(folder / "checkpoints" / "best.ckpt", ByteLevelBPE(300))
    return folder


def attention(capsys, *argv):
    code = main(["attention", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def index_of(path):
    return json.loads(re.search(r'id="index">(.*?)</script>', path.read_text(encoding="utf-8"), re.S)[1])


def test_a_page_a_table_and_a_figure(run_folder, tmp_path, capsys):
    page, figure = tmp_path / "heads.html", tmp_path / "alike.svg"
    code, out, err = attention(
        capsys, "--checkpoint", run_folder, "--text", "the <b> quick fox", "--output", page, "--metrics",
        "--similarity", figure, "--generate", 3,
    )  # fmt: skip
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["head", "entropy", "evenness"] and lines[0].split()[-1] == "importance"
    assert lines[1].startswith("stack.layers.0.attention 0") and len(lines) == 1 + 4 + 2
    assert lines[-2] == str(figure) and re.fullmatch(rf"{page}  \d\.\d MB", lines[-1])
    assert len(ElementTree.parse(figure).getroot().findall(".//{http://www.w3.org/2000/svg}rect")) == 1 + 16
    (model,) = index_of(page)["models"]
    assert "".join(model["words"]).startswith("the <b> quick fox") and len(model["words"]) == model["given"] + 2
    assert "<b>" not in page.read_text().split('id="index">')[1].split("</script>")[0]


def test_two_checkpoints(run_folder, tmp_path, capsys):
    other = save(tmp_path / "other" / "char.ckpt", Character([]), "Learned", 64)
    page = tmp_path / "heads.html"
    argv = ("--checkpoint", run_folder, "--with", other, "--text", "the fox", "--output", page)
    assert attention(capsys, *argv)[0] == 0
    assert [model["name"] for model in index_of(page)["models"]] == [run_folder.name, "char.ckpt"]


@pytest.mark.parametrize(
    "argv, said",
    [
        (("--text", "", "--output", "x.html"), "the text is empty: give one with at least a word"),
        (("--text", "the fox " * 60, "--output", "x.html"), "tokens and the model reads 64: shorten it"),
        (("--text", "the fox"), "attention: say what is wanted: --output page.html"),
        (("--text", "the fox", "--output", "x.pdf"), "--output x.pdf: must end in .html"),
        (("--text", "the fox", "--output", "no/where/x.html"), "its folder does not exist"),
        (("--text", "the fox", "--output", "x.html", "--heads", "9.1"), "head '9.1': there is none in"),
        (("--text", "the fox", "--output", "x.html", "--generate", "99"), "generate at most"),
        (("--text", "the fox", "--output", "x.html", "--megabytes", "0"), "--megabytes: is 0, must be between"),
        (("--input", "nowhere.txt", "--metrics"), "nowhere.txt: no such file"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(run_folder, tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = attention(capsys, "--checkpoint", run_folder, *argv)
    assert code in (2, 3) and out == "" and err.count("\n") == 1 and said in err
    assert list(tmp_path.glob("*.html*")) == []


def test_a_checkpoint_that_is_not_there(tmp_path, capsys):
    code, _, err = attention(capsys, "--checkpoint", tmp_path / "no", "--text", "a", "--metrics")
    assert code == 2 and err.count("\n") == 1 and "no" in err
