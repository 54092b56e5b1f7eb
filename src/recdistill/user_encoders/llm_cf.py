"""LLM-CF: a row reads what a language model wrote about similar decisions of the past.

Sun et al., "Large Language Models Enhanced Collaborative Filtering", CIKM 2024, https://arxiv.org/abs/2403.17688.

A language model was asked about a sample of training rows: history, an item, whether it was chosen next, and why
(``recdistill rationales llm-cf``). For a row, K of these examples with similar histories are retrieved (see
`retrieval`), all of them earlier than the row. Each is three tokens; the row's own token has no item. A causal decoder
(see `in_context`) reads them, and what it holds at the last token is added to the student's hidden state u::

    b = f_b([mean ids of history, mean text of history, id of item, text of item])                        # (1)
    t = f_t(vector of the words)      l = one of two learned vectors                                      # (2)
    h = Decoder(b_1, t_1, l_1, .., b_K, t_K, l_K, b(history, no item))                                    # (3)
    u' = u + w h_last                                                                                     # (4)
    L = L_r + α (1 - mean_k cos(f_r(h at b_k), words of k))                                               # (5)

=====================  ============  =======  ================================================================
symbol                 name in code  default  source of the default
=====================  ============  =======  ================================================================
w of eq. (4)           weight        0.1      authors' code, sequential students
α of eq. (5)           alpha         1        authors' code, YouTubeDNN; **0** for SASRec, GRU4Rec and SR-GNN
K                      chosen        2 + 2    authors' code: two of either label
                       refused
blocks                 blocks        2        authors' code
heads                  heads         2        authors' code
dropout                dropout       0.1      ours; as the students'
width of the ids       id_size       16       ours; the authors read the student's own item vectors
items of a history     last_items    10       ours; the length of DLLM2Rec's windows
=====================  ============  =======  ================================================================

Where the authors' code differs

1. It leaves out only later rows of the same user, so that a training row is shown its own example, label and all, and
   anybody's future. Here an example is shown only if it happened before the row, whoever's it is; see
   `recdistill.data.clock` for what "before" is where there are no timestamps.
2. It gives up where a label has fewer than two examples. Here the other label fills up, missing ones are masked, and a
   row without any example keeps the plain student's hidden state.
3. α reaches the decoder's weights and no others, so it cannot harm what the student has learned; the default is the
   one under which the words' own vectors are learned from. ``llm-cf.alpha=0`` is what the authors ran with SASRec.
4. It uses 768 numbers for vectors that its encoder gives 1024 of. Here the width is the folder's.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.user_encoders.base import KnownRows, in_blocks
from recdistill.user_encoders.examples import Examples, retrieved
from recdistill.user_encoders.reading import InContext, InContextTokens, two_layers
from recdistill.user_encoders.retrieval import Quota


class LlmCf(InContext):
    """LLM-CF in training.

    Parameters
    ----------
    examples
        What the language model wrote.
    dataset
        Whose rows are answered.
    size
        H of the student.
    alpha
        α of eq. (5), at least 0.
    seed
        Of the order in which a row's examples stand.
    **options
        Of `InContext`.

    Raises
    ------
    ConfigError
        An option is out of range.
    KnowledgeError
        There is no example, or the dataset's rows have other times than when it was asked about.
    """

    words: Tensor
    example_items: Tensor
    example_newest: Tensor

    def __init__(
        self,
        examples: Examples,
        dataset: SequenceDataset,
        size: int,
        *,
        weight: float = 0.1,
        alpha: float = 1.0,
        chosen: int = 2,
        refused: int = 2,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.1,
        id_size: int = 16,
        last_items: int = 10,
        seed: int = 0,
    ) -> None:
        if not alpha >= 0 or last_items < 1:
            raise ConfigError(
                f"alpha is {alpha} and last_items {last_items}. Allowed: 0 or more, and from 1. Set llm-cf.alpha=1 "
                "llm-cf.last_items=10."
            )
        quota = Quota(chosen, refused)
        newest = torch.from_numpy(dataset.histories(examples.positions(dataset), last_items))
        buffers = retrieved(examples, dataset, quota, last_items=last_items, seed=seed)
        every = KnownRows.of(dataset, dataset.row_ids, np.arange(len(dataset.row_ids)))
        super().__init__(
            every,
            buffers,
            size=size,
            persistent=False,
            weight=weight,
            chosen=chosen,
            refused=refused,
            blocks=blocks,
            heads=heads,
            dropout=dropout,
            id_size=id_size,
            last_items=last_items,
        )
        words = F.normalize(torch.from_numpy(np.array(examples.words, dtype=np.float32)), dim=1)
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("example_items", torch.from_numpy(examples.items.copy()), persistent=False)
        self.register_buffer("example_newest", newest, persistent=False)
        self.term_weight, self.seed = alpha, seed
        self.thought = two_layers(words.shape[1], size, size)  # f_t
        self.label = nn.Embedding(2, size)  # l
        self.recall = two_layers(size, size, words.shape[1])  # f_r
        self._term: Tensor | None = None

    def term(self) -> Tensor:
        """Return the unweighted term of eq. (5) of the last forward pass in training; it is handed out once."""
        found, self._term = self._term, None
        return self.words.new_zeros(()) if found is None else found

    def tokens_of(self, which: Tensor) -> Tensor:
        """Return ``(n, 3, H)`` the tokens of ``(n,)`` examples, eq. (1) and (2)."""
        behaviour = self.behaviours(self.example_newest[which], self.example_items[which])
        thought = self.thought(self.words[which] * self.words.shape[1] ** 0.5)
        return torch.stack([behaviour, thought, self.label(self.labels[which].long())], dim=1)

    @property
    def listens(self) -> bool:
        """Whether eq. (5) is formed."""
        return self.training and self.term_weight > 0

    def hear(self, states: Tensor, shown: Tensor, there: Tensor) -> None:
        """Form eq. (5)."""
        if not self.listens:
            return
        told = states[there]  # (n, H)
        close = F.cosine_similarity(self.recall(told), self.words[shown[there]], dim=1)
        self._term = 1 - close.mean() if len(close) else states.new_zeros(())

    @torch.no_grad()
    def fold(self) -> InContext:
        """Return what it does in evaluation mode; the words and what was learned to read them become tokens."""
        every = torch.arange(len(self.words), device=self.words.device)
        tokens = [self.tokens_of(every[part]) for part in in_blocks(len(every))]
        return InContextTokens.of(self, torch.cat(tokens))
