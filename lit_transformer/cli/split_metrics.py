"""What ``validate`` and ``test`` share: a checkpoint's metrics on a split."""

from lit_transformer.cli.arguments import parse_arguments
from lit_transformer.errors import EXIT_DONE

_HELP = """usage: lit-transformer {verb} --checkpoint PATH [--config RECIPE ...] [--KEY VALUE ...] [options]

Evaluate a checkpoint on the {split} split and print its metrics, one a line.

  --checkpoint PATH     a checkpoint file, or a run folder: its best checkpoint
  --config RECIPE       another recipe than the run's own; further ones are overlays
  --KEY VALUE           any key of the recipe, dotted: --data.batch_size 8
  --allow PACKAGE       let the recipe name classes of this package of yours; may be repeated
  --help                this text

example:
  lit-transformer {verb} --checkpoint runs/quickstart/20260101-120000
"""


def print_metrics(verb: str, split: str, argv: list[str]) -> int:
    """Runs the verb that evaluates this split."""
    if "--help" in argv or "-h" in argv:
        print(_HELP.format(verb=verb, split=split), end="")
        return EXIT_DONE
    arguments = parse_arguments(verb, argv)
    if arguments.configs:
        arguments.recipe()  # what is wrong with the YAML is said before torch is imported
    from lit_transformer.cli.training import run

    return run(arguments, [verb, *argv])
