"""Checkpoints of others -> a backbone's folder, equal to the original.

Enters: a folder as Hugging Face's transformers saves it. Leaves: parameters,
configuration, front end and tokenizer of `hra.backbone.store`.
"""
