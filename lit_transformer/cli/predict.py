"""``lit-transformer predict``: write a checkpoint's predictions."""

from lit_transformer.cli.arguments import parse_arguments
from lit_transformer.errors import EXIT_DONE

HELP = """usage: lit-transformer predict --checkpoint PATH [--config RECIPE ...] [--KEY VALUE ...] [options]

Write what the task predicts for each row of the data, as JSON lines.

  --checkpoint PATH     a checkpoint file, or a run folder: its best checkpoint
  --config RECIPE       another recipe than the run's own; further ones are overlays
  --KEY VALUE           any key of the recipe, dotted: --data.batch_size 8
  --output FILE         where to write; left out: standard output
  --allow PACKAGE       let the recipe name classes of this package of yours; may be repeated
  --help                this text

example:
  lit-transformer predict --checkpoint runs/quickstart/20260101-120000 --output predictions.jsonl
"""


def run(argv: list[str]) -> int:
    """Runs the verb."""
    if "--help" in argv or "-h" in argv:
        print(HELP, end="")
        return EXIT_DONE
    arguments = parse_arguments("predict", argv)
    if arguments.configs:
        arguments.recipe()  # what is wrong with the YAML is said before torch is imported
    from lit_transformer.cli.training import run as run_training

    return run_training(arguments, ["predict", *argv])
