"""From what a model wrote to items: distances to the catalogue, and what they are mixed with."""

from recdistill.teachers.grounding.grounder import Grounder
from recdistill.teachers.grounding.space import GroundOptions

__all__ = ["GroundOptions", "Grounder"]
