"""The recommendation losses L_r of eq. 11."""

from recdistill.losses.base import Loss
from recdistill.losses.bce import BCE
from recdistill.losses.bpr import BPR
from recdistill.losses.ce import CE, chunked_cross_entropy
from recdistill.losses.dros import DROS, dros_log_mass, dros_terms, propensity_scores
from recdistill.losses.gbce import GBCE
from recdistill.losses.sampled_ce import SampledCE, sampled_cross_entropy

LOSSES: dict[str, type[Loss]] = {
    "bce": BCE,
    "bpr": BPR,
    "ce": CE,
    "dros": DROS,
    "gbce": GBCE,
    "sampled_ce": SampledCE,
}

__all__ = [
    "BCE",
    "BPR",
    "CE",
    "DROS",
    "GBCE",
    "LOSSES",
    "Loss",
    "SampledCE",
    "chunked_cross_entropy",
    "dros_log_mass",
    "dros_terms",
    "propensity_scores",
    "sampled_cross_entropy",
]
