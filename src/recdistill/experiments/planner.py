"""From a table, a dataset and teachers to a plan: what has to be trained and tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recdistill.config import RunConfig, resolve
from recdistill.config.overrides import merge
from recdistill.data import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, unknown_name
from recdistill.experiments.naming import PLAIN, applies, parts_of, required_fields, section_of, titled
from recdistill.experiments.plan import Line, Plan, Study, TeacherFolder, identity, slug
from recdistill.experiments.space import search_space
from recdistill.experiments.table_lines import LINES
from recdistill.knowledge import available_fields
from recdistill.recipes import missing_fields
from recdistill.runs import MANIFEST, file_checksum, fingerprint
from recdistill.students import STUDENTS

__all__ = ["make_plan"]

#: The paper's name for SASRec with the loss dros.
_DROS: Final = "dros"
#: Default students: those of the paper's table.
_STUDENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "table5": ("gru4rec", "sasrec", _DROS),
    "best": ("sasrec",),
    "levers": ("sasrec",),
}


def make_plan(
    table: str,
    dataset: Path,
    knowledge: Sequence[Path],
    *,
    variant: str | None = None,
    students: Sequence[str] = (),
    strategies: Sequence[str] = (),
    seeds: int = 3,
    budget: int = 20,
    trial_epochs: int | None = None,
    words: Sequence[str] = (),
    data: SequenceDataset | None = None,
) -> Plan:
    """Return what a table needs on a dataset with these teachers.

    Parameters
    ----------
    table
        ``table1`` .. ``table8``, ``figure2``; ``best``: the preset, without one lever at a time; ``levers``: with
        another in a lever's place.
    dataset
        Dataset folder.
    knowledge
        Folders of the teachers.
    variant
        ``paper`` or ``modern``; None: the paper's, and modern for ``best`` and ``levers``.
    students
        Names in `STUDENTS` or ``dros``; none: the paper's for this table.
    strategies
        Recipes, strategies, item encoders, or several joined by ``+``; ``all``; none: the paper's.
    seeds
        How many final runs a line has; their seeds are 1, 2, ...
    budget
        Trials of each search; 0: no tuning.
    trial_epochs
        Largest number of epochs of a trial.
    words
        ``key=value`` for every run that has the key.
    data
        The dataset, where it is loaded already.

    Raises
    ------
    ConfigError
        A name or a word that does not exist.
    KnowledgeError
        The table needs a teacher and there is none.
    """
    variant = variant or ("modern" if table in ("best", "levers") else "paper")
    planner = Planner(
        table, dataset, _teachers(knowledge, data or SequenceDataset.load(dataset)), variant, words, budget
    )
    if table not in LINES:
        raise unknown_name("table", table, LINES)
    if table != "table4" and not knowledge:
        raise KnowledgeError(
            f"{table} needs a teacher's knowledge. Make it with recdistill teach graph --dataset d/ --out k/, "
            "then pass --knowledge k/."
        )
    checksums = {"": (data or SequenceDataset.load(dataset)).fingerprint}
    planner.checksums = checksums | {str(t.path): t.checksum for t in planner.teachers}
    for student in students or _STUDENTS.get(table, (_DROS,)):
        planner.student = _known_student(student)
        LINES[table](planner, list(strategies))
    planner.check_words()
    return Plan(
        table=table,
        variant=variant,
        lines=tuple(planner.lines),
        seeds=tuple(range(1, seeds + 1)),
        budget=budget,
        notes=tuple(dict.fromkeys(planner.notes)),
        checksums=planner.checksums,
        trial_epochs=trial_epochs,
    )


def _teachers(folders: Sequence[Path], data: SequenceDataset) -> list[TeacherFolder]:
    found: list[TeacherFolder] = []
    for folder in folders:
        fields = available_fields(folder, data)
        label = folder.resolve().name if len(folders) > 1 else ""
        while label and label in {teacher.label for teacher in found}:
            label += "'"
        found.append(TeacherFolder(folder.resolve(), label, file_checksum(folder / MANIFEST), fields))
    return found


def _known_student(name: str) -> str:
    allowed = [*STUDENTS, _DROS]
    if name not in allowed:
        raise unknown_name("student", name, allowed)
    return name


class Planner:
    """Collects the lines of one table."""

    def __init__(
        self,
        table: str,
        dataset: Path,
        teachers: list[TeacherFolder],
        variant: str,
        words: Sequence[str],
        budget: int,
    ) -> None:
        self.table, self.dataset, self.teachers, self.variant = table, dataset, teachers, variant
        self.words, self.budget, self.student = list(words), budget, ""
        self.checksums: dict[str, str] = {}
        self.lines: list[Line] = []
        self.notes: list[str] = []
        self._used: set[str] = set()
        for word in words:
            if word.partition("=")[0].strip() in ("seed", "dataset", "knowledge"):
                raise ConfigError(f"{word!r} is set for every run. Use --seeds, --dataset and --knowledge.")

    def config(
        self, section: Mapping[str, Any], teacher: TeacherFolder | None, label: str | None
    ) -> RunConfig:
        """Return the resolved config of a line of the current student."""
        student = {"name": "sasrec" if self.student == _DROS else self.student, "variant": self.variant}
        flags = merge({"dataset": str(self.dataset.resolve()), "student": student}, section)
        if self.student == _DROS:
            flags["loss"] = {"name": _DROS}
        if teacher is not None:
            flags["knowledge"] = str(teacher.path)
        if label is not None:
            flags["label"] = label
        bare = resolve(flags, strategy=None, file=None, words=())
        mine = [word for word in self.words if applies(word, bare)]
        self._used.update(mine)
        return resolve(flags, strategy=None, file=None, words=mine)

    def study(self, title: str, config: RunConfig) -> Study | None:
        """Return the search of a config, or None where nothing is tuned."""
        space = search_space(config, {word.partition("=")[0].strip() for word in self.words})
        if not self.budget or not space:
            return None
        key = fingerprint(identity(config, self.checksums), *map(str, space))[:10]
        folder = f"tuning/{self.student}-{self.variant}/{slug(config.recipe or 'run')}-{key}"
        return Study(f"{self.student} ({self.variant}) + {title}", folder, config, tuple(space))

    def check_words(self) -> None:
        """Refuse words that no run has a key for."""
        unused = [word for word in self.words if word not in self._used]
        if unused and self.lines:
            raise ConfigError(
                f"{unused[0]!r} sets a part that no run of {self.table} has. Parts here: "
                f"{', '.join(sorted({part for line in self.lines for part in parts_of(line.config)}))}."
            )

    def plain(self) -> None:
        """Add the student without a teacher."""
        config = self.config({"recipe": PLAIN}, None, None)
        study = self.study(PLAIN, config)
        self.lines.append(Line(self.student, PLAIN, "student", config, study, row=PLAIN))

    def strategy(self, name: str) -> None:
        """Add a line for each teacher that has what the strategy needs."""
        if name == PLAIN:
            return
        for teacher in self.teachers:
            config = self.config({"recipe": name, **section_of(name)}, teacher, None)
            title = titled(name, teacher)
            if self.served(title, config, teacher):
                study = self.study(title, config)
                line = Line(self.student, title, "distilled", config, study, teacher=teacher.label, row=name)
                self.lines.append(line)

    def served(self, title: str, config: RunConfig, teacher: TeacherFolder) -> bool:
        """Return whether a teacher has what a run needs; note it where not."""
        if config.words.name is not None and config.words.folder is None:
            self.notes.append(
                f"Left out, {title}: it reads what a language model wrote. Pass words.folder=t/, made by recdistill "
                "rationales."
            )
            return False
        error = missing_fields(required_fields(config), teacher.fields)
        if error is not None:
            self.notes.append(f"Left out, {title}: {str(error).partition('.')[0]}.")
        return error is None
