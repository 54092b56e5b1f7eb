"""What a small language model is trained on: titles in the order in which people chose them.

One document is a user's training titles in order, written as prompts write a list of titles::

    <s>"Lego Castle", "Toy Drum", "Chess Set"</s>

Only events that training may look at are told: no target of a validation or test row is among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import DataError
from recdistill.extras import extra
from recdistill.teachers.language_model.prompts import PROMPT_TEMPLATES, PromptTemplate
from recdistill.teachers.language_model.token_loss import TokenBatch

Ints = npt.NDArray[np.int64]
PAD_TOKEN, BOS_TOKEN, EOS_TOKEN = "<pad>", "<s>", "</s>"
#: A vocabulary holds every byte and the special tokens at least.
LEAST_VOCABULARY: Final = 256 + 3
#: Of all texts the tokenizer learns from, so many are the words around titles in prompts.
_PROMPT_SHARE: Final = 0.02


def documents(dataset: SequenceDataset, template: PromptTemplate) -> list[str]:
    """Return one text a sequence: its training titles, oldest first; items without a title are left out.

    Raises
    ------
    DataError
        No training event has a title.
    """
    titles = dataset.catalogue.titles
    told = dataset.train_event_mask & np.array([bool(title) for title in titles])[dataset.events]  # (E,)
    texts = []
    for start, end in zip(dataset.offsets[:-1].tolist(), dataset.offsets[1:].tolist(), strict=True):
        known = [titles[item] for item in dataset.events[start:end][told[start:end]].tolist()]
        if known:
            texts.append(template.items(known))
    if not texts:
        raise DataError(
            f"no training event of dataset {dataset.name!r} names an item with a title, so there is nothing to learn "
            "to write. Titles are needed: make the dataset anew with recdistill data ... and its item file."
        )
    return texts


def train_tokenizer(texts: Sequence[str], titles: Sequence[str], vocabulary: int, context: int) -> Any:
    """Learn byte-level BPE; every text can be written with it.

    The fixed words of the prompt templates are among what it learns from, so that prompts take few tokens.

    Parameters
    ----------
    texts
        Documents.
    titles
        Of the catalogue; empty ones are left out.
    vocabulary
        Tokens at most, 259 (bytes and special tokens) at least.
    context
        Tokens that the model reads.

    Returns
    -------
    PreTrainedTokenizerFast
        Of transformers.

    Raises
    ------
    MissingExtraError
        tokenizers or transformers is not installed.
    """
    with extra("llm"):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
        from transformers import PreTrainedTokenizerFast
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = [PAD_TOKEN, BOS_TOKEN, EOS_TOKEN]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_corpus(texts, titles), trainer)
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A",
        pair=f"{BOS_TOKEN} $A $B",
        special_tokens=[(BOS_TOKEN, special.index(BOS_TOKEN))],
    )
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=raw,
        pad_token=PAD_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _corpus(texts: Sequence[str], titles: Sequence[str]) -> Iterator[str]:
    yield from texts
    yield from (title for title in titles if title)
    for _ in range(int(_PROMPT_SHARE * len(texts)) + 1):
        yield from (template.prompt([]) for template in PROMPT_TEMPLATES.values())


def token_stream(tokenizer: Any, texts: Sequence[str]) -> Ints:
    """Return ``(n,)`` the documents' tokens one after the other, each with its begin and end."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found = tokenizer(
        list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
    ).input_ids
    return np.fromiter((token for ids in found for token in (bos, *ids, eos)), dtype=np.int64)


class PackedBlocks:
    """A token stream as blocks of one length, without padding; each epoch cuts at other places.

    Parameters
    ----------
    stream
        ``(n,)`` tokens, read as a ring.
    length
        T, tokens of a block.
    batch_blocks
        Blocks of a step.
    seed
        Of cuts and order.
    """

    def __init__(self, stream: Ints, length: int, batch_blocks: int, seed: int) -> None:
        self.stream, self.length, self.batch_blocks, self.seed = stream, length, batch_blocks, seed
        self.count = -(-len(stream) // length)

    def plan(self, epoch: int) -> list[list[Ints]]:
        """Return the steps of an epoch, each with one micro-batch of block numbers."""
        order = np.random.default_rng((self.seed, epoch, 0)).permutation(self.count)
        return [
            [order[start : start + self.batch_blocks]] for start in range(0, self.count, self.batch_blocks)
        ]

    def batch(self, epoch: int, examples: Ints) -> TokenBatch:
        """Return ``(B, T)`` blocks; every position is supervised."""
        cut = int(np.random.default_rng((self.seed, epoch, 1)).integers(self.length))
        return self.blocks(examples * self.length + cut)

    def blocks(self, starts: Ints) -> TokenBatch:
        """Return the blocks that begin at `starts` ``(B,)``."""
        index = (starts[:, None] + np.arange(self.length + 1)) % len(self.stream)  # (B, T + 1)
        found = torch.from_numpy(self.stream[index])
        return TokenBatch(found[:, :-1], found[:, 1:])

    def all_blocks(self) -> list[TokenBatch]:
        """Return every block once, in order and uncut, for validation."""
        starts = np.arange(self.count) * self.length
        return [self.blocks(part) for part in np.array_split(starts, -(-self.count // self.batch_blocks))]
