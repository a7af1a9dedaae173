"""Pre-trained models in and out, in the Hugging Face layout: one file a family, each a table read in both directions.

::

    incoming = read_folder("path/to/llama")       incoming.network()       incoming.section      incoming.weights
    write_folder("out", section, vocabulary, weights, tokenizer)           compare("out", network)
"""

from lit_transformer.interop.families import FAMILIES, family_of
from lit_transformer.interop.family import Family
from lit_transformer.interop.incoming import Incoming, read_folder
from lit_transformer.interop.outgoing import Inexpressible, expressed, write_folder

__all__ = ["FAMILIES", "Family", "Incoming", "Inexpressible", "expressed", "family_of", "read_folder", "write_folder"]
