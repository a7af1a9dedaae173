"""Tasks: LightningModules that own a loss, metrics and a prediction."""

from lit_transformer.tasks.base import Task
from lit_transformer.tasks.classification import Classification
from lit_transformer.tasks.language_modeling import LanguageModeling
from lit_transformer.tasks.prediction import TokenPrediction
from lit_transformer.tasks.translation import Translation

__all__ = ["Classification", "LanguageModeling", "Task", "TokenPrediction", "Translation"]
