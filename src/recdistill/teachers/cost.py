"""What a run of a language model will cost, from a timed sample of its own rows.

The sample is really run on the backend, in whole batches that are spread evenly over the prompts' lengths. What can
be counted is counted (rows, calls, and the prompts' tokens where the tokenizer is here); the rest is scaled:
answers and disk by rows, time by tokens.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recdistill.errors import ConfigError, RunError
from recdistill.teachers.backends.base import Generation, GenerationRequest, TextGenerator
from recdistill.teachers.backends.hf import HfGenerator
from recdistill.teachers.base import Progress
from recdistill.teachers.generation.lines import line_of


@dataclass(frozen=True)
class CostEstimate:
    """What all rows will take.

    Attributes
    ----------
    rows
        Rows to answer.
    calls
        Batches of a local model, or requests to an endpoint.
    sampled
        Rows that were run for this estimate.
    failed
        Those of them that failed.
    prompt_tokens, new_tokens
        Tokens that are read and written; 0 where the backend does not count them.
    counted
        Whether `prompt_tokens` was counted over all rows, rather than scaled from the sample.
    seconds
        Time of the whole run; no model is loaded in it.
    memory_bytes
        Peak memory while the sample ran, on the GPU if the model is there; None behind an endpoint.
    weight_bytes
        The part of it that the weights take; None behind an endpoint.
    disk_bytes
        Largest size of the answers' folder; while answers are merged they are there twice.
    price
        In the currency of the given prices, or None.
    """

    rows: int
    calls: int
    sampled: int
    failed: int
    prompt_tokens: int
    new_tokens: int
    counted: bool
    seconds: float
    memory_bytes: int | None
    weight_bytes: int | None
    disk_bytes: int
    price: float | None

    @property
    def hours(self) -> float:
        """`seconds` in hours."""
        return self.seconds / 3600

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values for a table."""
        how = "counted" if self.counted else "estimated"
        tokens = self.prompt_tokens + self.new_tokens
        speed = f" ({tokens / self.seconds:,.0f} tokens a second)" if tokens and self.seconds else ""
        found = [
            (
                "rows",
                f"{self.rows:,} ({self.sampled:,} run for this estimate, {self.failed:,} of them failed)",
            ),
            ("calls", f"{self.calls:,}"),
            (
                "tokens read",
                f"{self.prompt_tokens:,} ({how})" if self.prompt_tokens else "not counted by the backend",
            ),
            (
                "tokens written",
                f"{self.new_tokens:,} (estimated)" if self.new_tokens else "not counted by the backend",
            ),
            ("time", f"{_duration(self.seconds)}{speed}"),
        ]
        if self.memory_bytes is not None and self.weight_bytes is not None:
            weights = _size(self.weight_bytes)
            found.append(("memory", f"{_size(self.memory_bytes)} at its peak, {weights} of it weights"))
        found.append(("disk", f"{_size(self.disk_bytes)} for the answers"))
        if self.price is not None:
            found.append(("price", f"{self.price:,.2f}"))
        return found


def estimate_cost(
    generator: TextGenerator,
    requests: Sequence[GenerationRequest],
    *,
    sample: int = 32,
    prompt_price: float | None = None,
    answer_price: float | None = None,
    progress: Progress | None = None,
) -> CostEstimate:
    """Run a sample and scale it to all rows.

    Parameters
    ----------
    generator
        The backend; it is really asked. One request is asked before the clock starts.
    requests
        All that would be asked.
    sample
        Rows to run, at least; a local model runs whole batches, at least two where there are two. With an endpoint
        it should be a few times the requests under way, or the hours come out too high.
    prompt_price, answer_price
        Price of a million tokens read and written.
    progress
        Called with the number of rows that were just finished.

    Raises
    ------
    ConfigError
        There is nothing to ask, or `sample` is below 1.
    RunError
        Every sampled row failed, or a price is asked for and the backend counts no tokens.
    """
    if not requests or sample < 1:
        raise ConfigError(
            f"a cost cannot be estimated from {len(requests)} rows with a sample of {sample}. Allowed: at least one "
            "row, sample from 1. Pass --sample 32."
        )
    local = generator if isinstance(generator, HfGenerator) else None
    groups = generator.batches(requests)
    # an endpoint's tokenizer is not here: characters stand for its tokens
    counts = [len(request.prompt) for request in requests] if local is None else local.prompt_tokens(requests)
    sizes = {request.key: count for request, count in zip(requests, counts, strict=True)}
    asked = [request for group in _spread(groups, sizes, sample) for request in group]
    good, seconds = _timed(generator, asked, progress)
    read, written, work = _scaled(sizes, len(asked), good, counted=local is not None)
    by_key = {request.key: request for request in asked}
    line = sum(len(line_of(by_key[answer.key], answer)) for answer in good) / len(good)
    return CostEstimate(
        rows=len(requests),
        calls=len(groups),
        sampled=len(asked),
        failed=len(asked) - len(good),
        prompt_tokens=read,
        new_tokens=written,
        counted=local is not None,
        seconds=seconds * work,
        memory_bytes=None if local is None else _peak_memory(local),
        weight_bytes=None if local is None else local.weight_bytes,
        disk_bytes=math.ceil(2 * line * len(requests)),
        price=_price(read, written, prompt_price, answer_price),
    )


def _timed(
    generator: TextGenerator, asked: list[GenerationRequest], progress: Progress | None
) -> tuple[list[Generation], float]:
    """Return the answers that came and the seconds that all took."""
    list(generator.generate(asked[:1]))  # loads, connects, allocates
    before = time.perf_counter()
    answers = list(generator.generate(asked, progress))
    seconds = time.perf_counter() - before
    good = [answer for answer in answers if not answer.failed]
    if not good:
        raise RunError(
            f"all {len(answers)} sampled rows failed, the last with: {answers[-1].error}. At least one must be "
            "answered: see that the backend works."
        )
    return good, seconds


def _price(read: int, written: int, prompt_price: float | None, answer_price: float | None) -> float | None:
    if prompt_price is None and answer_price is None:
        return None
    if not read or not written:
        raise RunError(
            "the backend tells no token counts, so there is no price. Needed: usage in the endpoint's answers. Leave "
            "out --prompt-price and --answer-price."
        )
    return (read * (prompt_price or 0.0) + written * (answer_price or 0.0)) / 1e6


def _spread(
    groups: list[list[GenerationRequest]], sizes: Mapping[int, int], sample: int
) -> list[list[GenerationRequest]]:
    """Return whole groups with at least `sample` requests, evenly spread from the longest to the shortest."""
    ordered = sorted(groups, key=lambda group: -max(sizes[request.key] for request in group))
    mean = sum(map(len, groups)) / len(groups)
    count = min(len(groups), max(2, math.ceil(sample / mean)))
    chosen = np.unique(np.linspace(0, len(groups) - 1, count).round().astype(int))
    return [ordered[index] for index in chosen]


def _scaled(
    sizes: Mapping[int, int], asked: int, good: Sequence[Generation], *, counted: bool
) -> tuple[int, int, float]:
    """Return tokens read and written by all rows, and how many times the sample's work all rows are."""
    whole = sum(sizes.values())
    sampled = sum(answer.prompt_tokens for answer in good)
    read = whole if counted else round(sampled / sum(sizes[answer.key] for answer in good) * whole)
    written = sum(answer.new_tokens for answer in good) / len(good) * len(sizes)
    tokens = (sampled + sum(answer.new_tokens for answer in good)) * asked / len(good)
    return read, round(written), (read + written) / tokens if tokens else len(sizes) / asked


def _peak_memory(generator: HfGenerator) -> int:
    """Return the peak memory of the process, or of the GPU if the model is there, in bytes."""
    import torch

    if generator.scorer.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(generator.scorer.device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _duration(seconds: float) -> str:
    """Return seconds with the unit that suits them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} hours"


def _size(count: int) -> str:
    """Return bytes with a unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count = round(count / 1024)
    return f"{count / 1024:,.1f} GiB"
