"""Decoding: one loop over a network and its cache, and the objects that steer it."""

from lit_transformer.generation.banned_text import BannedText
from lit_transformer.generation.beam import beam_search
from lit_transformer.generation.caches import Int8Remembering, Remembering, SharedPrefix, Streaming
from lit_transformer.generation.classification import Classifier, Label
from lit_transformer.generation.contrastive import contrastive_search
from lit_transformer.generation.decoding import Completion, generate
from lit_transformer.generation.devices import device_of
from lit_transformer.generation.fixed import Compiled, FixedShape
from lit_transformer.generation.form import decoding_form
from lit_transformer.generation.guidance import Guidance
from lit_transformer.generation.model import Model
from lit_transformer.generation.penalties import (
    BannedWords,
    FrequencyPenalty,
    LogitBias,
    MinNewTokens,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
)
from lit_transformer.generation.rescoring import Coverage, Rescoring
from lit_transformer.generation.risk import chrf, minimum_bayes_risk
from lit_transformer.generation.runner import Runner
from lit_transformer.generation.samplers import (
    Choice,
    Greedy,
    History,
    LogitsProcessor,
    MinP,
    Multinomial,
    Sampler,
    Temperature,
    TopK,
    TopP,
    sampler_of,
)
from lit_transformer.generation.scoring import Score, score
from lit_transformer.generation.selection import Certain, Containing, Diverse, Eager, Likely, Patience, Selection
from lit_transformer.generation.speculative import Acceptance, Draft, DraftNetwork, PromptLookup, generate_speculatively
from lit_transformer.generation.streaming import StopStrings, TextStream
from lit_transformer.generation.structured import Structured
from lit_transformer.generation.text import Prompting, SourcePrompting, complete, sample_text
from lit_transformer.generation.translation import Translator
from lit_transformer.generation.truncation import Epsilon, Eta, Mirostat, TypicalP
from lit_transformer.generation.weights import BFloat16, Float16, Int8, Weights

__all__ = [
    "Acceptance", "BFloat16", "BannedText", "BannedWords", "Certain", "Choice", "Classifier", "Compiled", "Completion",
    "Containing", "Coverage", "Diverse", "Draft", "DraftNetwork", "Eager", "Epsilon", "Eta", "FixedShape", "Float16",
    "FrequencyPenalty", "Greedy", "Guidance", "History", "Int8", "Int8Remembering", "Label", "Likely", "LogitBias",
    "LogitsProcessor", "MinNewTokens", "MinP", "Mirostat", "Model", "Multinomial", "NoRepeatNGram", "Patience",
    "PresencePenalty", "PromptLookup", "Prompting", "Remembering", "RepetitionPenalty", "Rescoring", "Runner",
    "Sampler", "Score", "Selection", "SharedPrefix", "SourcePrompting", "StopStrings", "Streaming", "Structured",
    "Temperature", "TextStream", "TopK", "TopP", "Translator", "TypicalP", "Weights", "beam_search", "chrf", "complete",
    "contrastive_search", "decoding_form", "device_of", "generate", "generate_speculatively", "minimum_bayes_risk",
    "sample_text", "sampler_of", "score",
]  # fmt: skip
