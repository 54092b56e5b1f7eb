"""Titles out of a language model: greedy, beam and trie-bound decoding, kept line by line."""

from recdistill.teachers.generation.answers import GenerationStore, generate_rows, title_requests
from recdistill.teachers.generation.decoding import DecodeOptions
from recdistill.teachers.generation.trie import TitleTrie

__all__ = ["DecodeOptions", "GenerationStore", "TitleTrie", "generate_rows", "title_requests"]
