"""Who is asked: each teacher turns a dataset into knowledge and never sees a student."""

from recdistill.teachers.backends import HfGenerator, HttpGenerator, ScriptedGenerator
from recdistill.teachers.base import (
    RowScorer,
    Teacher,
    knowledge_from_scorer,
    plain,
    rows_to_teach,
)
from recdistill.teachers.baselines import BASELINES, PopularityScorer, baselines, evaluate_baselines
from recdistill.teachers.bi_encoder import BiEncoderOptions, BiEncoderTeacher
from recdistill.teachers.blend import BlendScorer, BlendTeacher, SignalOptions
from recdistill.teachers.embedding import EmbeddingTeacher
from recdistill.teachers.finetuning import FinetuneOptions, finetune
from recdistill.teachers.graph import GraphOptions, GraphScorer, GraphTeacher, TransitionGraph, tune
from recdistill.teachers.grounding import Grounder
from recdistill.teachers.item_head import ItemHeadOptions, ItemHeadTeacher
from recdistill.teachers.language_model import (
    PROMPT_TEMPLATES,
    LanguageModel,
    PromptTemplate,
    SmallLmOptions,
    load_language_model,
    load_template,
    train_small_lm,
)
from recdistill.teachers.precomputed import precomputed
from recdistill.teachers.text import ItemText, encode_text, whiten
from recdistill.teachers.text_query import EmbeddingOptions, TextQuery
from recdistill.teachers.walks import default_count, take_walks

#: Teachers that answer a dataset; one more, `precomputed`, has already answered.
TEACHERS: dict[str, type[GraphTeacher] | type[BlendTeacher] | type[EmbeddingTeacher]] = {
    GraphTeacher.name: GraphTeacher,
    BlendTeacher.name: BlendTeacher,
    EmbeddingTeacher.name: EmbeddingTeacher,
}

__all__ = [
    "BASELINES",
    "PROMPT_TEMPLATES",
    "TEACHERS",
    "BiEncoderOptions",
    "BiEncoderTeacher",
    "BlendScorer",
    "BlendTeacher",
    "EmbeddingOptions",
    "EmbeddingTeacher",
    "FinetuneOptions",
    "GraphOptions",
    "GraphScorer",
    "GraphTeacher",
    "Grounder",
    "HfGenerator",
    "HttpGenerator",
    "ItemHeadOptions",
    "ItemHeadTeacher",
    "ItemText",
    "LanguageModel",
    "PopularityScorer",
    "PromptTemplate",
    "RowScorer",
    "ScriptedGenerator",
    "SignalOptions",
    "SmallLmOptions",
    "Teacher",
    "TextQuery",
    "TransitionGraph",
    "baselines",
    "default_count",
    "encode_text",
    "evaluate_baselines",
    "finetune",
    "knowledge_from_scorer",
    "load_language_model",
    "load_template",
    "plain",
    "precomputed",
    "rows_to_teach",
    "take_walks",
    "train_small_lm",
    "tune",
    "whiten",
]
