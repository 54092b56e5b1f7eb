"""Scores of a few items a row, forward and backward: weighted bags against gathering the items' vectors.

Both sides get the same hidden states, table and lists, and their scores and gradients are compared before any time
is taken. The other side is what one would write first: ``table[items]`` and a batched matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import report
from measure import compare
from recdistill.products import listed_products

#: Rows, items a row, numbers an item, items of the catalogue: RRD's on Toys and Games, and DLLM2Rec's ten.
SHAPES = ((512, 80, 128, 11758), (512, 80, 64, 11758), (256, 80, 64, 17408), (256, 10, 64, 17408))
_ALLOWED = 1e-4  # of scores and gradients, relative to the largest


def gathered(hidden: Tensor, table: Tensor, items: Tensor) -> Tensor:
    return (table[items] @ hidden.unsqueeze(-1)).squeeze(-1)


def make(
    product: Callable[[Tensor, Tensor, Tensor], Tensor], shape: tuple[int, int, int, int], seed: int
) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Return what computes scores and both gradients once."""
    rows, width, size, count = shape
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, size, generator=generator).requires_grad_()
    table = torch.randn(count, size, generator=generator).requires_grad_()
    items = torch.randint(count, (rows, width), generator=generator)
    weights = torch.randn(rows, width, generator=generator)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        scores = product(hidden, table, items)
        of_hidden, of_table = torch.autograd.grad((scores * weights).sum(), (hidden, table))
        return scores.detach(), of_hidden, of_table

    return step


def difference(shape: tuple[int, int, int, int], seed: int) -> float:
    """Return the largest difference of scores and gradients, relative to the largest value of each."""
    ours, theirs = make(listed_products, shape, seed)(), make(gathered, shape, seed)()
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in zip(ours, theirs, strict=True)
    )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    lines, content = [], {}
    for shape in SHAPES:
        apart = difference(shape, options.seed)
        if apart > _ALLOWED:
            raise SystemExit(f"the two sides differ by {apart:.1e} at {shape}; allowed: {_ALLOWED:.0e}")
        times = compare(
            {
                "gathered": make(gathered, shape, options.seed),
                "bags": make(listed_products, shape, options.seed),
            },
            repeats=options.repeats,
            threads=options.threads,
        )
        ratio = report.ratio(times["gathered"], times["bags"])
        lines.append(
            (
                " x ".join(f"{number:,}" for number in shape),
                times["gathered"]["cpu_1_thread_ms"],
                times["bags"]["cpu_1_thread_ms"],
                ratio["cpu_1_thread"],
                ratio["wall"],
            )
        )
        content[str(shape)] = {"times": times, "ratio": ratio, "difference": apart}
    head = (
        "rows x listed x numbers x items",
        "gathered, CPU min ms",
        "bags, CPU min ms",
        "ratio CPU",
        "ratio wall",
    )
    worst = max(float(one["difference"]) for one in content.values())  # type: ignore[arg-type]
    text = report.table(head, lines) + f"\n\nForward and backward; the sides differ by {worst:.0e} at most."
    report.save("products", options.threads, options.out, {"shapes": content}, text)


if __name__ == "__main__":
    main()
