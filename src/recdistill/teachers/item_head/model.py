"""A causal language model that reads items as soft tokens and answers with scores of the whole catalogue.

The way of E4SRec (Li et al., arXiv 2312.02443): the language model's word head is taken off, an item enters as one
token made from its id vector, and a linear head over items reads the hidden state. Ours beyond it: item text
enters both sides, so that an item without training events can be read and scored. With e_i and w_i the free vectors of
item i, z_i its text vector and h the hidden state of the last position::

    token(i) = W_in e_i + A z_i                                                    # (1)
    q = [W_q h ; 1]                                                                # (2)
    o_i = P z_i + w_i                                                              # (3), its last entry is the bias
    score(i) = q . o_i                                                             # (4)

Where an item does not occur in training, e_i (as input) and w_i (as answer) stay 0: eq. 1 and 3 are then its text.

==============  ===============  ==========  ==========================================================
symbol          name in code     shape       start
==============  ===============  ==========  ==========================================================
e_i             input_free       (I, d_in)   normal, or given: another model's item vectors, not trained
W_in, A         input_map, ..    (D, .)      tokens about as long as the model's word vectors
z_i             text             (I, D_t)    given, brought to root mean square 1
W_q             query_map        (d, D)
P               head_text        (d+1, D_t)  scores of spread about 1
w_i             head_free        (I, d+1)    0: the head starts from text alone
==============  ===============  ==========  ==========================================================
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError, unknown_name
from recdistill.extras import extra
from recdistill.types import PAD

Tune = Literal["auto", "full", "lora", "frozen"]
TUNES: Final[tuple[str, ...]] = ("auto", "full", "lora", "frozen")

#: Up to this many parameters a language model is trained whole by default, above it by LoRA.
SMALL = 50_000_000


class ItemHeadModel(nn.Module):
    """Eq. 1 to 4.

    Parameters
    ----------
    decoder
        The causal transformer without word head: takes ``inputs_embeds``, returns ``last_hidden_state``.
    text
        ``(I, D_t)`` item text vectors, or None: items are ids alone.
    item_count
        I.
    id_size
        d_in, width of the free input vectors.
    head_size
        d, width of the head's space, without the bias.
    dropout
        Share of soft-token and query entries that is dropped in training.
    id_dropout
        How often a free vector is left out in training, so that text learns to stand alone.
    given
        ``(I, d_in)`` input vectors e that are not trained, only replaced by `push`; None: they are learned.

    Attributes
    ----------
    read, answered
        ``(I, 1)`` 1 where an item occurs in the training histories, or is an answer there; else 0.
    """

    text: Tensor
    read: Tensor
    answered: Tensor
    input_free: Tensor

    def __init__(
        self,
        decoder: nn.Module,
        text: Tensor | None,
        item_count: int,
        *,
        id_size: int = 64,
        head_size: int = 64,
        dropout: float = 0.2,
        id_dropout: float = 0.3,
        given: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        words = word_vectors(decoder)
        width = 0 if text is None else text.shape[1]
        self.vocabulary, hidden = words.shape
        table = torch.zeros(item_count, 0) if text is None else unit_spread(text)
        self.register_buffer("text", table, persistent=False)
        self.register_buffer("read", torch.ones(item_count, 1), persistent=False)
        self.register_buffer("answered", torch.ones(item_count, 1), persistent=False)
        spread = float(words.detach().float().square().mean().sqrt()) or 0.02
        if given is None:
            self.input_free = nn.Parameter(torch.randn(item_count, id_size))
        else:
            self.register_buffer("input_free", given.detach().float().clone(), persistent=False)
        self.input_map = _linear(self.input_free.shape[1], hidden, spread)
        self.input_text = _linear(width, hidden, spread) if width else None
        self.query_map = nn.Linear(hidden, head_size)
        self.head_free = nn.Parameter(torch.zeros(item_count, head_size + 1))
        self.head_text = _linear(width, head_size + 1, head_size**-0.5) if width else None
        self.dropout = nn.Dropout(dropout)
        self.id_dropout = id_dropout

    def know(self, read: Tensor, answered: Tensor) -> None:
        """Say which items occur in training: ``(I,)`` bool, in histories and as answers."""
        self.read.copy_(read.unsqueeze(1))
        self.answered.copy_(answered.unsqueeze(1))

    @torch.no_grad()
    def push(self, vectors: Tensor) -> None:
        """Replace the given input vectors by others, ``(I, d_in)``; nothing else changes."""
        self.input_free.copy_(vectors)

    def items(self, items: Tensor) -> Tensor:
        """Return the soft tokens ``(n, D)`` of ``(n,)`` items, eq. 1."""
        free = self.input_free[items] * self._kept(self.read[items])
        tokens: Tensor = self.input_map(free)
        if self.input_text is not None:
            tokens = tokens + self.input_text(self.text[items])
        dropped: Tensor = self.dropout(tokens)
        return dropped

    def forward(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Return the queries ``(S, d + 1)`` of eq. 2.

        Parameters
        ----------
        tokens
            ``(B, T)`` word tokens, and ``vocabulary + i`` for item i; `PAD` on the right. No mask is needed: a
            causal model never looks to the right.
        ends
            ``(S,)`` indices into the flattened ``(B * T)`` grid.
        """
        output = self.decoder(inputs_embeds=self._embedded(tokens), use_cache=False)
        hidden = output.last_hidden_state.flatten(0, 1)[ends]  # (S, D)
        query = self.dropout(self.query_map(hidden.to(self.query_map.weight.dtype)))
        return torch.cat([query, torch.ones_like(query[:, :1])], 1)  # (S, d + 1)

    def table(self, items: Tensor | None = None) -> Tensor:
        """Return the ``(n, d + 1)`` output vectors of some items, or of all, eq. 3."""
        chosen = slice(None) if items is None else items
        vectors = self.head_free[chosen] * self._kept(self.answered[chosen])
        return vectors if self.head_text is None else vectors + self.head_text(self.text[chosen])

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Return the ``(B, T, D)`` vectors that the language model reads."""
        words = word_vectors(self.decoder)
        soft = tokens >= self.vocabulary
        if bool((soft | (tokens == PAD)).all()):  # no word is read: none gets a gradient, not even a zero
            vectors = words.new_zeros(*tokens.shape, words.shape[1])
        else:
            vectors = words[tokens.clamp(0, self.vocabulary - 1)]
        own = self.items(tokens[soft] - self.vocabulary).to(words.dtype)
        return vectors.masked_scatter(soft.unsqueeze(-1), own)

    def _kept(self, known: Tensor) -> Tensor:
        """Return which free vectors take part: the known ones, less those that training drops."""
        if not self.training or not self.id_dropout:
            return known
        return known * (torch.rand_like(known) >= self.id_dropout)


def word_vectors(decoder: nn.Module) -> Tensor:
    """Return the ``(V, D)`` word vectors of a decoder, wrapped by peft or not."""
    embedding: Any = decoder.get_input_embeddings()  # type: ignore[operator]
    weight: Tensor = embedding.weight
    return weight


def unit_spread(text: Tensor) -> Tensor:
    """Return the vectors scaled by one number, so that the entries of those with text have root mean square 1."""
    known = text[text.any(1)].float()
    return text.float() / known.square().mean().sqrt().clamp_min(1e-12) if len(known) else text.float()


def decoder_of(model: nn.Module) -> nn.Module:
    """Return a causal language model's transformer without its word head.

    Raises
    ------
    ConfigError
        The model has none that takes ``inputs_embeds``.
    """
    decoder: Any = getattr(model, "base_model", None)
    if decoder is None or decoder is model or not hasattr(decoder, "get_input_embeddings"):
        raise ConfigError(
            f"{type(model).__name__} has no transformer apart from its word head. Allowed: a causal language model "
            "of the transformers library, e.g. Llama, Qwen, GPT-2. Make a small one with: recdistill lm train"
        )
    found: nn.Module = decoder
    return found


def choose_tuning(tune: str, decoder: nn.Module) -> Tune:
    """Return how the decoder is trained; ``auto`` is ``full`` up to `SMALL` parameters, else ``lora``.

    Raises
    ------
    ConfigError
        The name does not exist.
    """
    if tune not in TUNES:
        raise unknown_name("tune", tune, TUNES)
    if tune == "auto":
        return "full" if sum(p.numel() for p in decoder.parameters()) <= SMALL else "lora"
    return tune  # type: ignore[return-value]


def tuned_decoder(
    decoder: nn.Module,
    tune: Tune,
    *,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.05,
    targets: str = "all-linear",
) -> nn.Module:
    """Return the decoder with the parameters that shall be trained, and no others, asking for gradients.

    Parameters
    ----------
    decoder
        As loaded; LoRA wraps it in place.
    tune
        ``full``, ``lora`` or ``frozen``.
    rank, alpha, dropout, targets
        Of LoRA; `targets` are module names with commas between, or ``all-linear``.

    Raises
    ------
    MissingExtraError
        LoRA is wanted and peft is not installed.
    ConfigError
        A LoRA target does not exist in the model.
    """
    if tune != "lora":
        return decoder.requires_grad_(tune == "full")
    with extra("llm"):
        from peft import LoraConfig, get_peft_model

    names = targets if targets == "all-linear" else [name.strip() for name in targets.split(",")]
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    try:
        return get_peft_model(decoder, config)
    except ValueError as error:
        raise ConfigError(
            f"LoRA cannot be put on {targets!r} ({str(error).splitlines()[0]}). Allowed: all-linear, or names of the "
            "model's linear modules. Pass --lora-targets q_proj,v_proj."
        ) from None


def _linear(inputs: int, outputs: int, spread: float) -> nn.Linear:
    """Return a map without bias that turns entries of spread 1 into entries of spread `spread`."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=spread * max(inputs, 1) ** -0.5)
    return layer
