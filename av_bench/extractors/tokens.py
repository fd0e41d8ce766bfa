"""Text towers behind a byte-pair tokenizer, whose vocabulary files are local files of the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from av_bench import weights as files
from av_bench.contracts import MissingRequirement, Modality
from av_bench.extractors.base import BaseExtractor
from av_bench.weights.fill import Weights

LENGTH = 77


class Tokenizer(Protocol):
    """What is asked of a tokenizer of the package transformers."""

    def __call__(self, text: str, *, padding: str, truncation: bool, max_length: int) -> Mapping[str, Sequence[int]]:
        """``input_ids`` and ``attention_mask`` of a text."""


def local_files(kind: str) -> tuple[str, str]:
    """Paths of the vocabulary and the merges. MissingRequirement when they are absent."""
    return str(files.require(f"{kind}-vocab")), str(files.require(f"{kind}-merges"))


def tokenizer(kind: str) -> Tokenizer:
    """The tokenizer ``"roberta-base"`` or ``"gpt2"`` (padding with "!", as MS-CLAP does).

    Raises MissingRequirement, with the command that helps, when vocabulary files or transformers are absent.
    """
    vocabulary, merges = local_files(kind)
    try:
        import transformers
    except ImportError as error:
        raise MissingRequirement(f"{kind} tokenizer: {error}; pip install 'av-bench[paper]'") from error
    if kind == "roberta-base":
        roberta: Tokenizer = transformers.RobertaTokenizer(vocabulary, merges)
        return roberta
    made = transformers.GPT2Tokenizer(vocabulary, merges)
    made.add_special_tokens({"pad_token": "!"})
    gpt2: Tokenizer = made
    return gpt2


def encode(made: Tokenizer, text: str, *, cut: bool) -> Tensor:
    """int64 ``(2, 77)``: token ids and attention mask, padded at the end.

    A longer text is ``cut`` to 77 tokens (LAION-CLAP) or kept at its length (MS-CLAP, whose wrapper names a maximal
    length but never asks for truncation).
    """
    out = made(text, padding="max_length", truncation=cut, max_length=LENGTH)
    return torch.tensor([out["input_ids"], out["attention_mask"]])


class TokenExtractor(BaseExtractor):
    """A text extractor whose captions pass through the tokenizer ``vocabulary`` before the network sees them."""

    vocabulary: ClassVar[str]
    modality: ClassVar[Modality] = "text"
    batch_size = 32
    _tokenizer: Tokenizer | None = None

    @classmethod
    def weights_hash_of(cls, weights: Weights) -> str:
        """As for every extractor; absent vocabulary files are reported here, before any clip is decoded."""
        digest = super().weights_hash_of(weights)
        if weights is None:
            local_files(cls.vocabulary)
        return digest

    def encode(self, text: str, *, cut: bool) -> Tensor:
        """Token ids and attention mask of a text (see ``encode``)."""
        return encode(self.tokenizer(), text, cut=cut)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read from its files when it is first asked for."""
        if self._tokenizer is None:
            self._tokenizer = tokenizer(self.vocabulary)
        return self._tokenizer
