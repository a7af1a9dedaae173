"""What watches a run: progress, throughput, norms, samples."""

from lit_transformer.training.callbacks.attention import AttentionMetrics
from lit_transformer.training.callbacks.communication import CommunicationShare
from lit_transformer.training.callbacks.experts import ExpertBalance
from lit_transformer.training.callbacks.freeze import Freeze
from lit_transformer.training.callbacks.gradients import GradientNorm, Histograms, LayerGradientNorms
from lit_transformer.training.callbacks.history import History
from lit_transformer.training.callbacks.lora import DoRA, LoRA
from lit_transformer.training.callbacks.position_loss import PositionLoss
from lit_transformer.training.callbacks.progress import Progress
from lit_transformer.training.callbacks.ranks import Ranks
from lit_transformer.training.callbacks.samples import Samples
from lit_transformer.training.callbacks.throughput import Throughput

__all__ = [
    "AttentionMetrics", "CommunicationShare", "DoRA", "ExpertBalance", "Freeze", "GradientNorm", "Histograms",
    "History", "LayerGradientNorms", "LoRA", "PositionLoss", "Progress", "Ranks", "Samples", "Throughput",
]  # fmt: skip
