"""What distillation costs at inference: time(distilled) / time(plain), which must stay below 1.02.

The plain student has free item vectors; the distilled one was formed by the collaborative item encoder and
folded into a table at save. Both then have the same shapes, so their ratio should be 1 but for noise: beside
it stands the ratio of the plain student to a copy of itself, and what the distilled one costs unfolded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import report
import synthetic
from measure import interleave
from ours import fold, paper_sasrec
from recdistill.students import SequenceModel

LENGTH, LIMIT = 10, 1.02


def calls(model: SequenceModel, histories: torch.Tensor, times: int) -> Callable[[], None]:
    """Return a function that scores the histories `times` times and takes the best 20."""

    def work() -> None:
        for _ in range(times):
            model.score(histories).topk(20)

    return work


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--items", type=int, default=17408)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    vectors = np.random.default_rng(1).standard_normal((options.items, options.width), dtype=np.float32)
    distilled = paper_sasrec(options.items, vectors, length=LENGTH).eval()
    plain = fold(paper_sasrec(options.items, None, length=LENGTH))
    models = {
        "plain": plain,
        "plain, a copy": fold(plain),
        "distilled, folded": fold(distilled),
        "distilled, not folded": distilled,
    }
    dataset = synthetic.windows(options.batch_size, options.items, length=LENGTH)
    histories = torch.from_numpy(dataset.histories(dataset.rows("train"), LENGTH))
    folded, unfolded = models["distilled, folded"].score(histories), distilled.score(histories)
    difference = float((folded - unfolded).abs().max())
    content: dict[str, object] = {"largest_difference_folded_unfolded": difference, "limit": LIMIT}
    rows = []
    for name, part, times in (("one user", histories[:1], 50), (f"{options.batch_size} users", histories, 3)):
        sides = {label: calls(model, part, times) for label, model in models.items()}
        timings = interleave(sides, repeats=options.repeats, warmup=3, threads=1)
        best = {label: 1e3 * min(timing.cpu) / times for label, timing in timings.items()}
        middle = {label: float(np.median(timing.cpu)) for label, timing in timings.items()}
        content[name] = {"cpu_min_ms": best, "ratio": best["distilled, folded"] / best["plain"]}
        for label, value in best.items():
            rows.append((name, label, value, value / best["plain"], middle[label] / middle["plain"]))
    text = report.table(("scoring", "student", "CPU min ms", "ratio of minima", "ratio of medians"), rows)
    text += f"\n\nLimit of distilled / plain: {LIMIT}. Folded and unfolded scores differ by {difference:.0e}."
    report.save("inference", options.threads, options.out, content, text)


if __name__ == "__main__":
    main()
