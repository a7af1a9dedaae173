"""Architectures: composition of blocks, one file each."""

from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.decoder_only import DecoderOnly
from lit_transformer.networks.encoder_decoder import EncoderDecoder, EncoderParts
from lit_transformer.networks.encoder_only import EncoderOnly
from lit_transformer.networks.initialisation import DepthScaled, Initialisation, Normal, ZeroResidual, initialise
from lit_transformer.networks.prefix_lm import PrefixLM

__all__ = [
    "DecoderOnly", "DepthScaled", "EncoderDecoder", "EncoderOnly", "EncoderParts", "Initialisation", "Network",
    "Normal", "Output", "PrefixLM", "ZeroResidual", "initialise",
]  # fmt: skip
