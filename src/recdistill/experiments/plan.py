"""A grid of runs as plain data: the lines of a table, each a resolved config, and the folders of their runs.

A folder's name carries a hash of everything that a run depends on, so tables share their runs, a changed option
gets a folder of its own, and what is finished is known without a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recdistill.config import RunConfig
from recdistill.evaluate.report import Kind
from recdistill.experiments.space import Parameter, with_values
from recdistill.runs import fingerprint

__all__ = ["Line", "Plan", "Study", "TeacherFolder", "identity", "slug"]


@dataclass(frozen=True)
class TeacherFolder:
    """A knowledge folder of the command line.

    Attributes
    ----------
    path
        The folder.
    label
        Its name in tables, empty where there is only one.
    checksum
        Of its manifest: knowledge that is made anew makes new runs.
    fields
        Which fields it has.
    """

    path: Path
    label: str
    checksum: str
    fields: frozenset[str]


@dataclass(frozen=True)
class Study:
    """One search on validation rows.

    Attributes
    ----------
    title
        For progress lines.
    folder
        Under the output folder.
    config
        The run before tuning.
    space
        What is tuned.
    """

    title: str
    folder: str
    config: RunConfig
    space: tuple[Parameter, ...]


@dataclass(frozen=True)
class Line:
    """One line of a table: a config that is trained with several seeds.

    Attributes
    ----------
    student, name
        Whose table it stands in, and its name there.
    kind
        ``student`` without a teacher, or ``distilled``.
    config
        The run before tuning.
    study
        Whose tuned values it takes, or None: those of the config.
    fixed
        Key → value that no tuning changes (a point of Figure 2).
    teacher
        Label of its teacher where there are several.
    row
        Key of its published line.
    """

    student: str
    name: str
    kind: Kind
    config: RunConfig
    study: Study | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    teacher: str = ""
    row: str = ""

    def tuned(self, values: Mapping[str, float]) -> RunConfig:
        """Return the config of the final runs."""
        return with_values(self.config, {**values, **self.fixed})


@dataclass(frozen=True)
class Plan:
    """What a table needs.

    Attributes
    ----------
    table
        ``table1`` .. ``table8`` or ``figure2``.
    variant
        ``paper`` or ``modern`` students.
    lines
        All lines, student after student.
    seeds
        Seeds of the final runs.
    budget
        Trials of each study; 0: nothing is tuned.
    notes
        What is left out, and why.
    checksums
        Fingerprint of the dataset under ``""``, checksum of each knowledge folder under its path.
    trial_epochs
        Largest number of epochs of a trial, or None.
    """

    table: str
    variant: str
    lines: tuple[Line, ...]
    seeds: tuple[int, ...]
    budget: int
    notes: tuple[str, ...]
    checksums: Mapping[str, str]
    trial_epochs: int | None = None

    @property
    def studies(self) -> list[Study]:
        """The different searches, in the order of the lines."""
        found = {line.study.folder: line.study for line in self.lines if line.study is not None}
        return list(found.values())

    @property
    def students(self) -> list[str]:
        """The students, in order."""
        return list(dict.fromkeys(line.student for line in self.lines))

    def identity(self, config: RunConfig) -> str:
        """Return the hash of what a run depends on, but for its seed: not of names and places."""
        return identity(config, self.checksums)

    def folder(self, config: RunConfig, student: str) -> str:
        """Return the folder of a config's runs under the output folder; each seed has one in it."""
        return f"runs/{student}-{self.variant}/{slug(config.recipe or 'run')}-{self.identity(config)}"


def identity(config: RunConfig, checksums: Mapping[str, str]) -> str:
    """Return the hash of a config without seed, names and places, of its dataset and of its knowledge."""
    plain = config.model_dump(exclude={"dataset", "knowledge", "seed", "label", "recipe"})
    said = checksums[config.knowledge] if config.knowledge else ""
    return fingerprint(json.dumps(plain, sort_keys=True), checksums[""], said)[:10]


def slug(name: str) -> str:
    """Return a name with nothing in it but ``a-z``, ``0-9`` and ``-``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "line"
