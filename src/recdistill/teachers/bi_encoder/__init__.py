"""A pretrained text encoder, fine-tuned to put a history beside the title that follows it."""

from recdistill.teachers.bi_encoder.options import BiEncoderOptions
from recdistill.teachers.bi_encoder.teacher import BiEncoderTeacher

__all__ = ["BiEncoderOptions", "BiEncoderTeacher"]
