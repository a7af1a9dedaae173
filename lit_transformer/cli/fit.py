"""``lit-transformer fit``: train a recipe."""

import os

from lit_transformer.cli.arguments import parse_arguments
from lit_transformer.errors import EXIT_DONE

HELP = """usage: lit-transformer fit --config RECIPE [--config OVERLAY ...] [--KEY VALUE ...] [options]

Train a recipe. Everything goes into runs/<recipe>/<time>/: the resolved recipe, the tokenizer, the log, checkpoints
and TensorBoard events.

  --config RECIPE       a shipped recipe by name (lit-transformer recipes list), or a file; further ones are overlays
  --KEY VALUE           any key of the recipe, dotted: --trainer.max_steps 100 --model.network.position ALiBi
  --resume              go on from the newest checkpoint of this recipe's runs that verifies; if none, begin anew
  --resume=PATH         the same from this checkpoint file or run folder
  --init_from PATH      start from the weights of a checkpoint file or run folder; with --resume, if there is nothing
                        to resume
  --allow PACKAGE       let the recipe name classes of this package of yours; may be repeated
  --output FOLDER       the run folder, instead of runs/<recipe>/<time>
  --print_config        print the resolved recipe with all defaults and stop
  --help                this text

exit codes: 0 done, 2 mistake in recipe or command line, 3 disk or permission, 4 diverged, 75 stopped and resumable

example:
  lit-transformer fit --config quickstart --config overlays/tiny --trainer.max_steps 20
"""


def run(argv: list[str]) -> int:
    """Runs the verb."""
    if "--help" in argv or "-h" in argv:
        print(HELP, end="")
        return EXIT_DONE
    if "LIT_TRANSFORMER_DEBUG" not in os.environ:  # a lost rank is said in one line, not in pages of frames
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    arguments = parse_arguments("fit", argv)
    if arguments.configs:
        arguments.recipe()  # what is wrong with the YAML is said before torch is imported
    from lit_transformer.cli.training import run as run_training

    return run_training(arguments, ["fit", *argv])
