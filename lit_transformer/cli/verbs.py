"""The verbs of ``lit-transformer``.

To add one: write ``cli/<verb>.py`` with a function ``run(argv: list[str]) -> int`` (a hyphen in the verb is an
underscore in the file, and a keyword of Python gets one behind it), and add its line here. What a verb needs beyond the
standard library it imports inside its functions, so that ``--help`` answers at once.
"""

VERBS: dict[str, str] = {
    "fit": "train a recipe, or go on with a run (--resume)",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "write a checkpoint's predictions",
    "generate": "continue a text with a trained model",
    "translate": "translate a file line by line, and score it against references",
    "classify": "write the class of each line of a file, with probabilities",
    "score": "say how probable a text is: log-likelihood, perplexity, bits per byte",
    "evaluate": "run tasks of the lm-evaluation-harness on a model",
    "serve": "serve a model over HTTP, with a page to try it",
    "attention": "show what every head of a model does with a text, as a page, a table or a figure",
    "study": "train the cells of a study, and write its report",
    "report": "write the report of a study again, without training",
    "import": "make a run folder of a pre-trained model in the Hugging Face layout",
    "export": "write a checkpoint as a folder that transformers loads",
    "checkpoint": "inspect and verify checkpoints",
    "verify-resume": "prove that a killed run of a recipe goes on exactly",
    "equiv": "prove that accumulation, packing, recompute, compile and devices change nothing",
    "plan": "say what a recipe will need: parameters, memory, time, by strategy and devices",
    "preflight": "say whether all hosts of a job answer, before it begins",
    "submit": "write a SLURM script that trains a recipe, and goes on after a pre-emption",
    "mask": "draw the pattern of a mask, with its density and the FLOPs it saves",
    "recipes": "list, show, copy and validate recipes",
}
