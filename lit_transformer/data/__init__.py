"""Data: corpora, tokenizers, the token cache, packing, loaders and the DataModules that join them."""
