"""What a teacher leaves behind: named arrays keyed by row id, their folder, their audit, the authors'
files."""

from recdistill.knowledge.audit import audit_knowledge, teacher_evaluation
from recdistill.knowledge.audit_text import render_audit
from recdistill.knowledge.findings import Audit
from recdistill.knowledge.knowledge import FIELDS, ROW_FIELDS, Knowledge
from recdistill.knowledge.lists import title_groups
from recdistill.knowledge.official import export_official, import_official
from recdistill.knowledge.scores import METRICS
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import load_knowledge, provenance, save_knowledge

__all__ = [
    "FIELDS",
    "METRICS",
    "ROW_FIELDS",
    "Audit",
    "Knowledge",
    "ShardWriter",
    "audit_knowledge",
    "export_official",
    "import_official",
    "load_knowledge",
    "provenance",
    "render_audit",
    "save_knowledge",
    "teacher_evaluation",
    "title_groups",
]
