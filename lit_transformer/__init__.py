"""lit_transformer: train, understand and compare Transformers."""

__version__ = "0.1.0"
