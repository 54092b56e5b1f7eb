"""A causal language model learns to write the next title (LoRA or all weights)."""

from recdistill.teachers.finetuning.finetune import finetune
from recdistill.teachers.finetuning.options import FinetuneOptions

__all__ = ["FinetuneOptions", "finetune"]
