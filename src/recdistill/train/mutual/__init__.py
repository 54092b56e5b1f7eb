"""Mutual teaching of a student and a language model (LLMD4Rec): rounds, weights, what passes between the two."""

from recdistill.train.mutual.listener import Listener, Quiet
from recdistill.train.mutual.options import MutualOptions
from recdistill.train.mutual.records import round_folders
from recdistill.train.mutual.rounds import mutual
from recdistill.train.mutual.student import StudentSide
from recdistill.train.mutual.term import Partner
from recdistill.train.mutual.weights import RankWeights, rank_gap_weights

__all__ = [
    "Listener",
    "MutualOptions",
    "Partner",
    "Quiet",
    "RankWeights",
    "StudentSide",
    "mutual",
    "rank_gap_weights",
    "round_folders",
]
