"""Trains a small real tokenizer for tests, a byte-level BPE."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def train(texts: Sequence[str], path: Path) -> str:
    """Write a tokenizer.json of 300 tokens that merges the commonest pairs of `texts`. Return its path."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(texts) * 20, trainer)
    tokenizer.save(str(path))
    return str(path)
