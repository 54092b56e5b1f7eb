"""Logs and titles in, rows of train, valid and test out."""

from recdistill.data.catalogue import Catalogue, sorted_ids
from recdistill.data.filters import apply_filters, at_least_rating, core, with_title
from recdistill.data.interactions import Interactions, find_duplicate, find_problems
from recdistill.data.negatives import sample_negatives, shared_negatives
from recdistill.data.prepare import prepare
from recdistill.data.sequences import PREFIX, SPLIT_NAMES, SequenceDataset, gather_windows
from recdistill.data.simulator import ShopConfig, SimulatedShop, simulate, simulated_dataset, write_simulated
from recdistill.data.sources import SOURCES, download, read_frames, read_windows
from recdistill.data.splits import global_time, leave_one_out
from recdistill.data.statistics import PUBLISHED, describe, published_row
from recdistill.titles import normalise_title

__all__ = [
    "PREFIX",
    "PUBLISHED",
    "SOURCES",
    "SPLIT_NAMES",
    "Catalogue",
    "Interactions",
    "SequenceDataset",
    "ShopConfig",
    "SimulatedShop",
    "apply_filters",
    "at_least_rating",
    "core",
    "describe",
    "download",
    "find_duplicate",
    "find_problems",
    "gather_windows",
    "global_time",
    "leave_one_out",
    "normalise_title",
    "prepare",
    "published_row",
    "read_frames",
    "read_windows",
    "sample_negatives",
    "shared_negatives",
    "simulate",
    "simulated_dataset",
    "sorted_ids",
    "with_title",
    "write_simulated",
]
