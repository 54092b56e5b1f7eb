"""What a teacher leaves behind: named arrays keyed by row id, their folder, their audit, the authors'
files."""

from recdistill.knowledge.audit import audit_knowledge, require_unlearned, teacher_evaluation
from recdistill.knowledge.audit_text import render_audit
from recdistill.knowledge.findings import Audit
from recdistill.knowledge.knowledge import FIELDS, ROW_FIELDS, Knowledge
from recdistill.knowledge.lists import title_groups
from recdistill.knowledge.official import export_official, import_official
from recdistill.knowledge.row_files import read_row_ids, write_row_ids
from recdistill.knowledge.scores import METRICS
from recdistill.knowledge.selection import (
    all_rows,
    budget_rows,
    confident,
    hard_band,
    max_min_policy,
    random_rows,
)
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import available_fields, load_knowledge, provenance, save_knowledge
from recdistill.knowledge.trajectory import stack_rankings
from recdistill.knowledge.walks import WALKS, Walks, WithWalks, has_walks, load_walks
from recdistill.knowledge.words import Words, is_words, load_words, save_words

__all__ = [
    "FIELDS",
    "METRICS",
    "ROW_FIELDS",
    "WALKS",
    "Audit",
    "Knowledge",
    "ShardWriter",
    "Walks",
    "WithWalks",
    "Words",
    "all_rows",
    "audit_knowledge",
    "available_fields",
    "budget_rows",
    "confident",
    "export_official",
    "hard_band",
    "has_walks",
    "import_official",
    "is_words",
    "load_knowledge",
    "load_walks",
    "load_words",
    "max_min_policy",
    "provenance",
    "random_rows",
    "read_row_ids",
    "render_audit",
    "require_unlearned",
    "save_knowledge",
    "save_words",
    "stack_rankings",
    "teacher_evaluation",
    "title_groups",
    "write_row_ids",
]
