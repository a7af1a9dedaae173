"""The entry point: help at once, one line for every mistake, exit codes."""

import subprocess
import sys
import time

import pytest

from lit_transformer.cli import main as program
from lit_transformer.cli.main import main
from lit_transformer.cli.verbs import VERBS
from lit_transformer.errors import Diverged, EnvironmentFault, Preempted, UserError

QUICK = [
    ["--help"], ["--version"], [], ["recipes", "--help"], ["recipes", "list"], ["recipes", "copy", "--help"],
    ["fit", "--help"], ["validate", "--help"], ["test", "--help"], ["predict", "--help"], ["fitt"], ["fit", "--confg"],
]  # fmt: skip

CHECK = """
import sys
from lit_transformer.cli.main import main
for argv in {argvs!r}:
    main(argv)
slow = [m for m in ("torch", "lightning", "jsonargparse", "numpy", "datasets", "tokenizers") if m in sys.modules]
print("IMPORTED", slow)
"""


def test_quick_commands_import_nothing_slow():
    done = subprocess.run([sys.executable, "-c", CHECK.format(argvs=QUICK)], capture_output=True, text=True)
    assert done.stdout.strip().endswith("IMPORTED []"), done.stdout + done.stderr


def test_help_answers_in_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "lit_transformer", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: lit-transformer") and "example:" in text and f"lit-transformer {verb} " in text


def test_help_lists_every_verb(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text and summary in text for verb, summary in VERBS.items())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fitt"], "unknown verb 'fitt'; did you mean fit?"),
        (["valdate"], "did you mean validate or "),
        (["--hepl"], "unknown option '--hepl'; did you mean --help?"),
        (["zzzz"], "unknown verb 'zzzz'; lit-transformer --help lists them"),
        (["recipes"], "recipes: "),
        (["recipes", "lst"], "did you mean list?"),
        (["recipes", "show", "x", "--resolvd"], "unknown option '--resolvd'"),
        (["recipes", "show", "--res", "x"], "unknown option '--res'"),
        (["recipes", "copy"], "required: RECIPE"),
        (["recipes", "show", "no_such_recipe_anywhere"], "no such file and no shipped recipe"),
        (["fit"], "--config is missing"),
        (["fit", "tiny.yaml"], "unexpected 'tiny.yaml'"),
        (["fit", "--config"], "--config needs a value"),
        (["fit", "--config", "--resume"], "--config needs a value"),
        (["fit", "--conf", "x"], "unknown option '--conf'; did you mean --config"),
        (["fit", "--resum"], "did you mean --resume?"),
        (["fit", "--print_config=1"], "takes no value"),
        (["fit", "--checkpoint", "x"], "unknown option '--checkpoint'"),
        (["fit", "--traner.max_steps", "3"], "unknown option '--traner.max_steps'; did you mean --trainer"),
        (["fit", "--config", "http://example.org/x.yaml"], "recipes are read from files only"),
        (["fit", "--config", ""], "expected a file"),
        (["fit", "--config", "a\0b"], "expected a file"),
        (["validate"], "--checkpoint is missing"),
        (["validate", "--resume"], "unknown option '--resume'"),
        (["validate", "--checkpoint", "https://example.org/x.ckpt"], "read from files only"),
        (["fit", "--config", "tiny.yaml", "--resume=https://example.org/x.ckpt"], "read from files only"),
        (["fit", "--config", "tiny.yaml", "--resume=gone.ckpt", "--init_from", "x"], "exclude each other"),
        (["fit", "--config", "tiny.yaml", "--resume", "--init_from", "x"], "--init_from x: no such file"),
    ],
)
def test_mistakes_on_the_command_line(argv, message, command, folder):
    code, out, err = command(*argv)
    assert code == 2 and err.count("\n") == 1 and err.startswith("lit-transformer: ") and message in err, err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("u"), 2), (EnvironmentFault("e"), 3), (Diverged("d"), 4), (Preempted("p"), 75),
        (KeyboardInterrupt(), 130), (OSError(28, "No space left on device", "x.ckpt"), 3),
        (PermissionError(13, "Permission denied", "runs"), 3), (MemoryError(), 3), (SystemExit(7), 7),
    ],
)  # fmt: skip
def test_exit_codes(error, code, monkeypatch, capsys):
    def fail(argv):
        raise error

    monkeypatch.setattr("lit_transformer.cli.recipes.run", fail)
    assert main(["recipes"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") <= 1 and "Traceback" not in err


def test_a_bug_is_one_line_and_a_report(monkeypatch, capsys, tmp_path):
    def fail(argv):
        program.run_folder = tmp_path
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("lit_transformer.cli.recipes.run", fail)
    assert main(["recipes"]) == 1
    err = capsys.readouterr().err
    (report,) = tmp_path.iterdir()
    assert err.count("\n") == 1 and "internal error: ZeroDivisionError: two lines" in err and str(report) in err
    assert "Traceback" in report.read_text()
    program.run_folder = None


def test_a_closed_pipe_is_quiet():
    script = f"{sys.executable} -m lit_transformer --help | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
