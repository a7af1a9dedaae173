"""Architectures: composition of blocks, one file each."""

from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.decoder_only import DecoderOnly
from lit_transformer.networks.initialisation import DepthScaled, Initialisation, Normal, initialise

__all__ = ["DecoderOnly", "DepthScaled", "Initialisation", "Network", "Normal", "Output", "initialise"]
