"""Loading, prompting and making language models."""

from recdistill.teachers.language_model.loading import LanguageModel, load_language_model
from recdistill.teachers.language_model.prompts import PROMPT_TEMPLATES, PromptTemplate, load_template
from recdistill.teachers.language_model.small import SmallLmOptions, train_small_lm

__all__ = [
    "PROMPT_TEMPLATES",
    "LanguageModel",
    "PromptTemplate",
    "SmallLmOptions",
    "load_language_model",
    "load_template",
    "train_small_lm",
]
