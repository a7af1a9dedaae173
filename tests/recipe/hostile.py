"""Recipes of somebody who wants code to run: a class for every slot that is not the slot's to take."""

from collections.abc import Iterator

SLOTS = {
    "the task": ("model", "{}"),
    "the network": ("model.network", "{}"),
    "a position": ("model.network.position", "{}"),
    "an attention": ("model.network.layer", "{{class_path: Layer, attention: {}}}"),
    "a layer in a list": ("model.network.layer", "[Layer, {}]"),
    "a mask in a mask": ("model.network.mask", "{{class_path: And, masks: [Causal, {}]}}"),
    "the optimizer": ("model.optimizer", "{}"),
    "the schedule": ("model.schedule", "{}"),
    "the corpus": ("data.corpus", "{}"),
    "the tokenizer": ("data.tokenizer", "{}"),
    "a callback": ("trainer.callbacks", "[{}]"),
    "a single callback": ("trainer.callbacks", "{}"),
    "a logger": ("trainer.logger", "[{}]"),
    "a strategy": ("trainer.strategy", "{{class_path: DDPStrategy, precision_plugin: {}}}"),
    "a plugin": ("trainer.plugins", "[{}]"),
    "a profiler": ("trainer.profiler", "{{class_path: PyTorchProfiler, schedule: {}}}"),
    "a comm hook": ("trainer.strategy", "{{class_path: DDPStrategy, ddp_comm_hook: {}}}"),
    "free arguments": ("trainer.strategy", "{{class_path: DDPStrategy, dict_kwargs: {{a: {}}}}}"),
    "a number": ("trainer.max_steps", "{}"),
    "the seed": ("seed_everything", "{}"),
}
"""Where a class can be named: a key, and what stands there around the name."""


def names(module: str) -> list[str]:
    """What stands for a class; ``module`` is one that leaves a mark when it is imported."""
    return [
        "{class_path: os.system, init_args: {command: touch pwned}}",
        "{class_path: subprocess.Popen, init_args: {args: [touch, pwned]}}",
        f"{{class_path: {module}.Evil}}",
        f"{{class_path: {module}.Missing, init_args: {{x: 1}}}}",
        "{class_path: turtle.Turtle}",
        "{class_path: torch.hub.load, init_args: {repo_or_dir: a/b, model: c}}",
        "{class_path: lightning.pytorch.callbacks.LambdaCallback, init_args: {on_fit_start: os.system}}",
        "{class_path: lit_transformer.data.files.os.system}",
        f"{{class_path: lit_transformer.data.{module}.Evil}}",
        "{class_path: lit_transformer.cli.main.main}",
        "{class_path: builtins.eval, init_args: {source: 1}}",
        f"{{class_path: '{module}.Evil; import turtle'}}",
        f"{module}.Evil",
    ]


def hostile_overlays(module: str) -> Iterator[tuple[str, str]]:
    """Overlays, each with one slot taken by one of the names, and what they are called."""
    for slot, (key, form) in SLOTS.items():
        for name in names(module):
            if slot != "free arguments" or name.startswith("{"):  # there, text stays text
                yield f"{slot}: {name}", f"{key}: {form.format(name)}\n"
