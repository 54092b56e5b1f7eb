"""DROS: BCE plus a distributionally robust term over all items.

Yang et al., "A Generic Learning Framework for Sequential Recommendation with Distribution Shifts", SIGIR
2023, https://github.com/YangZhengyi98/DROS. The student that DLLM2Rec calls DROS is SASRec with this loss.

    L = BCE + alpha * mean_s D(s, y)
    D(s, c) = log( sum_{i != c} exp(p_i f_si^2 / beta) + exp(p_c (f_sc - 1)^2 / beta) )            (1)
    p_i = ((n_i + 1) / sum_j (n_j + 1))^0.05

D is a KL-robust squared loss: item c should score 1, every other item 0. For several c of a row, with
z = p f^2 / beta, z' = p (f - 1)^2 / beta and M = logsumexp_i z_i:

    D(s, c) = logaddexp(others_c, z'_c),    others_c = M + log1p(-exp(z_c - M))                    (2)

The difference in (2) cancels where c holds most of the mass; there others_c is a second logsumexp without c.

======  ============  ======  ==========================================================
symbol  name in code  shape   default and its source
======  ============  ======  ==========================================================
alpha   alpha         scalar  0.5, DLLM2Rec's README (its code: 1.0, DROS's code: 0)
beta    radius        scalar  1.0, authors' code
p       propensity    (I,)    exponent 0.05, authors' code; n_i counts training targets
f       logits        (S, I)
M       mass          (S,)
======  ============  ======  ==========================================================

Where the authors' code differs from this file
----------------------------------------------
1. They add exponentials: the sum overflows for |f| above 35 in float64, above 12 in float32. Here logsumexp.
2. Their p is float64, which turns every (S, I) tensor into float64. Here float32.
3. They add 1e-24 to the sum. It is never below I - 1, so that does nothing and is left out.
4. They subtract the target's exponential from the sum and add the new one. Form (2) without its exception;
   it loses all digits where the target dominates.
5. Theory has a factor beta in front of the logarithm and -log I behind it; both are left out, as in their
   code. So the gradient is 1 / beta of the theory's.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.losses.base import Loss
from recdistill.losses.bce import BCE, Reduction
from recdistill.types import Batch, StudentOutput, Task

_DOMINANT = math.log(0.5)  # above half of the mass, 1 - exp(z - M) loses more than one bit


def propensity_scores(popularity: Tensor, exponent: float = 0.05) -> Tensor:
    """Return ``(I,)`` float32 p from ``(I,)`` counts of training targets."""
    counts = popularity.double() + 1
    return (counts / counts.sum()).pow(exponent).float()


class _LogMass(torch.autograd.Function):
    """M of logits that come from hidden states and table; no ``(S, I)`` gradient of logits is formed."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        table: Tensor,
        bias: Tensor | None,
        logits: Tensor,
        scale: Tensor,
        excluded: Tensor | None,
    ) -> Tensor:
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        shares = exact.square().mul_(scale)  # (S, I), z
        if excluded is not None:
            shares.scatter_(1, excluded.unsqueeze(1), -torch.inf)
        peaks = shares.amax(1)
        torch.softmax(shares, 1, out=shares)
        mass = peaks - shares.amax(1).log()  # max share >= 1 / I: finite
        slope = shares.mul_(exact).mul_(2 * scale).to(logits.dtype)  # dM / df
        ctx.save_for_backward(hidden, table, slope)
        ctx.has_bias = bias is not None
        return mass

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, slope = ctx.saved_tensors
        gradient = gradient.to(slope.dtype)
        weighted = gradient.unsqueeze(1) * hidden.to(slope.dtype)
        grad_hidden = gradient.unsqueeze(1) * (slope @ table.to(slope.dtype))
        grad_bias = slope.T @ gradient if ctx.has_bias else None
        return grad_hidden, slope.T @ weighted, grad_bias, None, None, None


def _log_mass(
    output: StudentOutput, scale: Tensor, rows: Tensor | None = None, excluded: Tensor | None = None
) -> Tensor:
    hidden, logits = output.hidden, output.logits.detach()
    if rows is not None:
        hidden, logits = hidden[rows], logits[rows]
    mass: Tensor = _LogMass.apply(  # type: ignore[no-untyped-call]
        hidden, output.item_table, output.item_bias, logits, scale, excluded
    )
    return mass


def dros_log_mass(output: StudentOutput, propensity: Tensor, radius: float) -> Tensor:
    """Return M ``(S,)``, the log-sum-exp of ``p f^2 / beta`` over all items; computed once a batch.

    Parameters
    ----------
    output
        The student's answer.
    propensity
        ``(I,)`` p, see `propensity_scores`.
    radius
        beta > 0.
    """
    return output.shared(f"dros_log_mass/{radius}", lambda: _log_mass(output, propensity / radius))


def dros_terms(output: StudentOutput, items: Tensor, propensity: Tensor, radius: float) -> Tensor:
    """Return D ``(S, k)`` of eq. 1 for ``(S, k)`` items, each as if it were its row's target.

    Parameters
    ----------
    output
        The student's answer.
    items
        Item indices; a `PAD` item gets the term of item 0.
    propensity
        ``(I,)`` p, see `propensity_scores`.
    radius
        beta > 0.
    """
    mass = dros_log_mass(output, propensity, radius).unsqueeze(1)  # (S, 1)
    index = items.clamp_min(0)
    scale = propensity[index] / radius  # (S, k)
    scores = output.scores(index)
    share = scale * scores.square() - mass  # log of the items' shares of the mass
    dominant = share > _DOMINANT
    others = mass + torch.log1p(-share.masked_fill(dominant, _DOMINANT).exp())
    if bool(dominant.any()):
        pairs = dominant.nonzero(as_tuple=True)
        exact = _log_mass(output, propensity / radius, rows=pairs[0], excluded=index[pairs])
        others = others.index_put(pairs, exact.to(others.dtype))
    return torch.logaddexp(others, scale * (scores - 1).square())


class DROS(Loss):
    """BCE plus alpha times the robust term (1) of the target.

    Parameters
    ----------
    alpha
        Weight of the robust term, at least 0.
    radius
        beta, the robust radius, above 0: the larger, the closer to a plain squared loss.
    reduction
        Of the BCE part, see `BCE`; the authors' code takes the mean of all terms.

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    """

    needs_negatives: ClassVar[bool] = True
    propensity: Tensor

    def __init__(self, *, alpha: float = 0.5, radius: float = 1.0, reduction: Reduction = "official") -> None:
        super().__init__()
        if alpha < 0 or radius <= 0:
            raise ConfigError(
                f"alpha={alpha}, radius={radius}. Allowed: alpha at least 0, radius above 0. "
                "Set loss.options.alpha=0.5 loss.options.radius=1."
            )
        self.alpha = alpha
        self.radius = radius
        self.reduction = reduction
        self.bce = BCE(reduction=reduction)
        self.register_buffer("propensity", torch.empty(0), persistent=False)

    def prepare(self, task: Task) -> None:
        """Form p from the items' popularity."""
        self.propensity = propensity_scores(task.popularity).to(self.propensity.device)

    def forward(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return the scalar loss, mean over the S rows."""
        base: Tensor = self.bce(output, batch)
        if self.alpha == 0:
            return base
        terms = dros_terms(output, batch.targets.unsqueeze(1), self.propensity, self.radius)
        return base + self.alpha * terms.mean()
