"""The recommendation losses L_r of eq. 11."""

from recdistill.losses.base import Loss
from recdistill.losses.bce import BCE
from recdistill.losses.bpr import BPR
from recdistill.losses.ce import CE
from recdistill.losses.dros import DROS, dros_log_mass, dros_terms, propensity_scores
from recdistill.losses.gbce import GBCE

LOSSES: dict[str, type[Loss]] = {"bce": BCE, "bpr": BPR, "ce": CE, "dros": DROS, "gbce": GBCE}

__all__ = [
    "BCE",
    "BPR",
    "CE",
    "DROS",
    "GBCE",
    "LOSSES",
    "Loss",
    "dros_log_mass",
    "dros_terms",
    "propensity_scores",
]
