"""Instructions to token ids, after pi0's rules (openpi models/tokenizer.py): <bos> text newline, padded on the
right.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from r1lite_description import files

BOS, PAD = "<bos>", "<pad>"


class Prompt:
    """Turns an instruction into ids and a validity mask of fixed length."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.bos, self.pad = tokenizer.token_to_id(BOS), tokenizer.token_to_id(PAD)
        if self.bos is None or self.pad is None:
            raise ValueError(f"the tokenizer has no {BOS} or no {PAD} token")
        # An instruction is text: "<bos>" or "<image>" in it is spelled out and not taken for the token, which the
        # embedding may not even have.
        tokenizer.encode_special_tokens = True
        self._encoded: tuple[str, tuple[np.ndarray, np.ndarray]] | None = None  # the newest; it seldom changes

    @classmethod
    def load(cls, path: Path, max_tokens: int) -> Prompt:
        """Read a Hugging Face `tokenizer.json`."""
        with files.reading(path, "a tokenizer of Hugging Face"):
            tokenizer = Tokenizer.from_file(str(path))
        try:
            return cls(tokenizer, max_tokens)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def encode(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (max_tokens,) int64 and mask (max_tokens,) bool, True where a token is real.

        Raises:
            ValueError: the instruction is empty, or longer than `max_tokens` tokens.
        """
        if self._encoded and self._encoded[0] == instruction:
            return self._encoded[1]
        text = instruction.strip().replace("_", " ").replace("\n", " ")
        if not text:
            raise ValueError("the instruction is empty")
        ids = [
            self.bos,
            *self.tokenizer.encode(text, add_special_tokens=False).ids,
            *self.tokenizer.encode("\n", add_special_tokens=False).ids,
        ]
        if len(ids) > self.max_tokens:
            raise ValueError(f"the instruction has {len(ids)} tokens; at most {self.max_tokens} fit: {instruction!r}")
        padding = self.max_tokens - len(ids)
        encoded = np.array(ids + [self.pad] * padding), np.array([True] * len(ids) + [False] * padding)
        self._encoded = instruction, encoded
        return encoded


def train_tokenizer(instructions: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer for a small model: any text can be encoded, the given instructions compactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(instructions, trainer)
    return tokenizer
