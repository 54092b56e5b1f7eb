"""The stages of ``recdistill teach bigrec`` on one folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.cli.bigrec_options import OWN_ENCODERS, BigRecOptions
from recdistill.cli.bigrec_parts import mixed, student, tuned_line, tuning_bar
from recdistill.cli.teaching import Bars

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from recdistill.data.sequences import SequenceDataset
    from recdistill.teachers.backends import GenerationRequest, TextGenerator
    from recdistill.teachers.backends.base import Generation
    from recdistill.teachers.bigrec.teacher import Speaker
    from recdistill.teachers.grounding.encoders import TextEncoder
    from recdistill.teachers.grounding.injection import Injection
    from recdistill.teachers.language_model.loading import LanguageModel
    from recdistill.teachers.language_model.prompts import PromptTemplate


@dataclass
class BigRecRun:
    """The stages of one command on one folder."""

    data: SequenceDataset
    options: BigRecOptions
    template: PromptTemplate = field(init=False)
    rows: npt.NDArray[np.int64] = field(init=False)
    parts: list[Speaker] = field(init=False)
    knowledge: Any = field(init=False, default=None)
    closing: str = field(init=False, default="")

    def __post_init__(self) -> None:
        from recdistill.teachers.bigrec.teacher import speakers
        from recdistill.teachers.folds import fold_of_row
        from recdistill.teachers.language_model.prompts import load_template

        given = self.options
        self.template = load_template(given.domain)
        self.rows = self._rows()
        folded = given.folds > 1 and given.tune != "none"
        folds = fold_of_row(self.data, given.folds, seed=given.seed) if folded else None
        encodes = given.ground_encoder in ("tuned", "mean")
        self.parts = speakers(self.data, self.rows, folds, encodes=encodes)

    def _rows(self) -> npt.NDArray[np.int64]:
        import numpy as np

        from recdistill.cli.teaching import selected_rows, split_names
        from recdistill.teachers import rows_to_teach
        from recdistill.teachers.base import some_rows

        given, select = self.options, selected_rows(self.options.select_row_ids)
        splits = split_names(given.splits)
        if given.rows is None:
            return rows_to_teach(self.data, splits, prefixes=given.prefixes, select=select)
        parts = [
            some_rows(rows_to_teach(self.data, [split], prefixes=given.prefixes, select=select), given.rows)
            for split in splits
            if len(self.data.rows(split))
        ]
        return np.sort(np.concatenate(parts))

    def finetune(self) -> None:
        """Tune every model on the rows it may learn from."""
        from recdistill.teachers.bigrec.stages import ADAPTERS, write_sample
        from recdistill.teachers.finetuning.finetune import finetune, in_sft_sample

        folder, learned = self.options.out / ADAPTERS, {}
        base = self._model(None)
        for part in self.parts:
            with Bars() as bars:
                hear = tuning_bar(bars, part.name)
                made = finetune(
                    base,
                    self.data,
                    part.may_learn,
                    self.template,
                    self.options.finetuning,
                    folder / part.name,
                    on_step=hear,
                )
            learned[part.name] = self.data.row_ids[in_sft_sample(self.data, made)]
            print(tuned_line(part.name, made, len(learned[part.name])))
        write_sample(self.options.out, learned)

    def generate(self) -> None:
        """Ask every model for the answers to its rows."""
        from recdistill.teachers.backends.spread import SpreadGenerator
        from recdistill.teachers.bigrec.stages import generate_answers, require_answered

        reports = []
        for part in self.parts:
            if not len(part.answers):
                continue
            generator, lm = self.generator(part)
            if (cluster := self.options.cluster) is not None:
                generator = SpreadGenerator(generator, cluster, AnswerWorker, [self, part])
            for name, rows, shuffle in self._asked(part):
                requests = self._requests(rows, lm, generator, shuffle)
                with Bars() as bars:
                    bar = bars.add(f"{name}: answering rows", len(requests))
                    report = generate_answers(
                        generator, requests, self.options.out, name, self._settings(shuffle), bar
                    )
                print(f"{generator.name}, {name}: {report}")
                reports.append(report)
        require_answered(reports)

    def _asked(self, part: Speaker) -> list[tuple[str, npt.NDArray[np.int64], int | None]]:
        """Return what one model is asked: its rows, and some validation rows with their histories shuffled."""
        import numpy as np

        from recdistill.teachers.bigrec.stages import SHUFFLED
        from recdistill.teachers.bigrec.teacher import ALL
        from recdistill.teachers.order import order_rows

        asked: list[tuple[str, npt.NDArray[np.int64], int | None]] = [(part.name, part.answers, None)]
        if part.name == ALL and self.options.order_rows and self.options.student is None:
            some = order_rows(self.data, self.options.order_rows)
            some = some[np.isin(some, part.answers)]
            if len(some):
                asked.append((SHUFFLED, some, self.options.seed))
        return asked

    def _settings(self, shuffle: int | None) -> dict[str, Any]:
        """Return what decides the answers besides the generator."""
        return {
            "prompt": self.template.fingerprint,
            "dataset": self.data.fingerprint,
            "last_items": self.options.last_items,
            "max_tokens": self.options.max_tokens,
            "shuffle": shuffle,
        }

    def ground(self) -> None:
        """Ground what was written, and describe it."""
        from recdistill.knowledge.store import add_to_manifest
        from recdistill.teachers.bigrec.stages import (
            answered_in_sample,
            generation_settings,
            load_answers,
        )
        from recdistill.teachers.bigrec.teacher import ground_answers
        from recdistill.teachers.grounding.answer_facts import answer_facts
        from recdistill.teachers.language_model.prompts import normalise_answer
        from recdistill.teachers.language_model.small import trained_on

        out, given = self.options.out, self.options
        answers = load_answers(out, self.parts, self.data)
        injection = self._injection()
        facts = {
            "model": given.model,
            "preset": given.preset,
            "folds": given.folds,
            "model_read_training_histories": trained_on(self.options.model, self.data),
            "generations": generation_settings(out, self.parts),
        }
        encoder = self._encoder()
        with Bars() as bars:
            bar = bars.add("encoding titles, then grounding rows", len(answers))
            self.knowledge = ground_answers(
                self.data,
                answers,
                encoder,
                out,
                given.ground,
                facts=facts,
                injection=injection,
                choose=given.gamma is None,
                normalise=normalise_answer,
                progress=bar,
                cluster=given.cluster,
            )
        found = answer_facts(self.data, answers, self.knowledge, normalise_answer)
        learned = answered_in_sample(out, self.parts, self.data)
        order = self._order(encoder, injection)
        add_to_manifest(
            out,
            {"answer_facts": asdict(found), "answered_by_a_model_tuned_on_the_row": learned, **order},
        )
        self.closing = f"{found}\n{learned:,} rows were answered by a model that was tuned on them"
        if trained_on(self.options.model, self.data):
            self.closing += "; the model itself (recdistill lm train) was made from all training histories"
        for record in order.values():
            if record["drop"] is not None:
                self.closing += (
                    f"\nshuffled histories cost {record['drop']:.1%} of NDCG@20 ({record['rows']:,} rows)"
                )
        if missing := len(self.rows) - len(answers):
            self.closing += f"\n{missing:,} rows have no answer: distil with train.coverage=skip or mask"

    def _order(self, encoder: TextEncoder, injection: Injection | None) -> dict[str, Any]:
        """Return what shuffled histories cost, under the manifest's name for it; nothing where it was not asked."""
        import numpy as np

        from recdistill.teachers.bigrec.stages import GENERATIONS, SHUFFLED
        from recdistill.teachers.bigrec.teacher import ground_ranks
        from recdistill.teachers.generation.lines import load_generations
        from recdistill.teachers.language_model.prompts import normalise_answer
        from recdistill.teachers.order import ORDER, order_record

        given, folder = self.options, self.options.out / GENERATIONS / SHUFFLED
        if not folder.is_dir() or (injection is not None and injection.kind != "popularity"):
            return {}  # another model's scores would still be those of the true order
        known = set(self.knowledge.row_ids.tolist())
        answers = {row: answer for row, answer in load_generations(folder).items() if row in known}
        if not answers:
            return {}
        if injection is not None:
            injection = replace(injection, gamma=self.knowledge.manifest["injection"]["gamma"])
        ids, after = ground_ranks(
            self.data,
            answers,
            encoder,
            given.out,
            given.ground,
            injection=injection,
            normalise=normalise_answer,
        )
        before = self.knowledge.target_rank[np.searchsorted(self.knowledge.row_ids, ids)].astype(np.int64)
        return {ORDER: order_record(before, after, seed=given.seed)}

    def _requests(
        self,
        rows: npt.NDArray[np.int64],
        lm: LanguageModel | None,
        generator: TextGenerator,
        shuffle: int | None,
    ) -> list[GenerationRequest]:
        from recdistill.teachers.bigrec.stages import requests_for

        return requests_for(
            self.data,
            rows,
            self.template,
            last_items=self.options.last_items,
            lm=lm,
            max_tokens=self.options.max_tokens,
            answer_tokens=getattr(generator, "answer_tokens", 0),
            shuffle=shuffle,
        )

    def generator(self, part: Speaker) -> tuple[TextGenerator, LanguageModel | None]:
        """Return who answers, and the model where it is in this process."""
        from recdistill.teachers.backends import HfGenerator, HttpGenerator
        from recdistill.teachers.bigrec.stages import answer_length
        from recdistill.teachers.generation.decoding import DecodeOptions

        given, titles = self.options, self.data.catalogue.titles
        if given.backend == "http":
            endpoint = HttpGenerator(
                given.model,
                given.base_url or [],
                api=given.api,  # type: ignore[arg-type]
                max_new_tokens=given.max_new_tokens or 128,
                stop=["\n"],
                concurrency=given.concurrency,
                api_key_env=given.api_key_env,
            )
            return endpoint, None
        lm = self._model(part.name)
        options = DecodeOptions(
            mode=given.decode,  # type: ignore[arg-type]  # the class checks it
            beams=min(given.beams or 1, len(set(titles) - {""})),
            max_new_tokens=given.max_new_tokens or answer_length(lm, self.template, titles),
            lm_weight=1.0 if given.student is None else given.lm_weight,
        )
        completions = [self.template.completion(title) if title else "" for title in titles]
        other = {} if given.student is None else mixed(given.student, self.data)
        local = HfGenerator(lm, options, completions=completions, batch_tokens=given.batch_tokens, **other)
        return local, lm

    def _model(self, name: str | None) -> LanguageModel:
        """Return a tuned model by its name among the folds; None: the model as it was given."""
        from recdistill.errors import RunError
        from recdistill.teachers.bigrec.stages import ADAPTERS
        from recdistill.teachers.language_model.loading import load_language_model

        given = self.options
        adapter = None if name is None or given.tune == "none" else given.out / ADAPTERS / name
        if adapter is not None and not adapter.is_dir():
            raise RunError(
                f"{adapter} is not there: the model has not been fine-tuned. Either it is, or it is used as it is: run "
                "--stage finetune with the same options first, or pass --tune none."
            )
        return load_language_model(
            given.model, adapter=adapter, dtype=given.dtype, device=given.device, quantize=given.quantize
        )

    def _encoder(self) -> TextEncoder:
        from recdistill.teachers.bigrec.teacher import ALL
        from recdistill.teachers.grounding.encoders import LanguageModelEncoder, SentenceEncoder

        kind = str(self.options.ground_encoder)
        if kind not in OWN_ENCODERS:
            return SentenceEncoder(kind)
        lm = self._model(None if kind == "base" else ALL)
        return LanguageModelEncoder(lm, "mean" if kind == "mean" else "last")

    def _injection(self) -> Injection | None:
        from recdistill.teachers.grounding.injection import collaborative, popularity

        given = self.options
        if given.inject == "none":
            return None
        if given.inject == "popularity":
            found = popularity(self.data)
        else:
            scorer, length, name = student(Path(given.inject), self.data)
            found = collaborative(
                lambda rows, histories: scorer(histories, self.data.row_ids[rows]), self.data, length, name
            )
        return replace(found, gamma=given.gamma or 0.0, zero_guard=given.zero_guard)


class AnswerWorker:
    """Answers groups of requests on a worker of a cluster, with a model that it loads itself."""

    def __init__(self, run: BigRecRun, part: Speaker) -> None:
        self.generator, _ = run.generator(part)

    def run(self, task: list[GenerationRequest]) -> list[Generation]:
        """Return the answers to one group."""
        return list(self.generator.generate(task))
