"""An audit as Markdown: the page that a user reads before training."""

from __future__ import annotations

from collections.abc import Sequence

from recdistill.knowledge.findings import Audit, Rival
from recdistill.knowledge.profile import QUANTILES


def render_audit(audit: Audit) -> str:
    """Return the audit as Markdown, the verdict first."""
    seen = "without the items of the history" if audit.filter_seen else "items of the history kept"
    sections = [
        f"# Audit: {audit.teacher} on {audit.dataset}",
        f"**{audit.verdict}**",
        f"Judged on the {audit.split} rows, top {audit.k}, full ranking, {seen}.",
    ]
    if audit.warnings:
        sections.append("## Warnings\n\n" + "\n".join(f"- {warning}" for warning in audit.warnings))
    sections += [_gates(audit), _coverage(audit), _metrics(audit)]
    if audit.rivals:
        sections += [_rivals(audit), _strength(audit.rivals)]
    if audit.model:
        sections.append(_overlap(audit, audit.model))
    if audit.slices and audit.benchmark:
        sections.append(_slices(audit, audit.benchmark))
    sections.append(_profiles(audit))
    sections.append(
        "## Alignment\n\n"
        + _table(
            ["check", "passed", "seen"],
            [[c.name, "yes" if c.passed else "NO", c.detail] for c in audit.checks],
        )
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _coverage(audit: Audit) -> str:
    rows = [[name, f"{c.rows:,}", f"{c.covered:,}", _percent(c.share)] for name, c in audit.coverage.items()]
    return "## Rows that the teacher was asked about\n\n" + _table(
        ["split", "rows", "covered", "share"], rows
    )


def _gates(audit: Audit) -> str:
    if not audit.gates:
        return ""
    marks = {"passed": "yes", "failed": "NO", "not asked": "–"}
    rows = [[gate.name, marks[gate.status], gate.detail] for gate in audit.gates]
    return "## Quality gates, on validation rows\n\n" + _table(["gate", "passed", "seen"], rows)


def _metrics(audit: Audit) -> str:
    if not audit.metrics:
        return ""
    names = [f"{m}@{k}" for m in ("hr", "ndcg", "mrr") for k in audit.ks]
    names = [name for name in names if all(name in found for found in audit.metrics.values())]
    rows = [
        [
            "train (learned from?)" if split == "train" else split,
            *(f"{m[n]:.4f}" for n in names),
        ]
        for split, m in audit.metrics.items()
    ]
    return "## The teacher, by split\n\n" + _table(["split", *(name.upper() for name in names)], rows)


def _rivals(audit: Audit) -> str:
    k = audit.k
    rows = [
        [
            rival.name,
            rival.kind,
            f"{rival.metrics[f'hr@{k}']:.4f}",
            f"{rival.metrics[f'ndcg@{k}']:.4f}",
            f"{rival.teacher_metrics[f'hr@{k}']:.4f}",
            f"{rival.teacher_metrics[f'ndcg@{k}']:.4f}",
            f"{rival.difference.mean:+.4f} ± {2 * rival.difference.error:.4f}",
        ]
        for rival in audit.rivals
    ]
    head = ["rival", "kind", f"HR@{k}", f"NDCG@{k}", f"teacher HR@{k}", f"teacher NDCG@{k}", f"Δ NDCG@{k}"]
    return (
        "## The teacher beside others, on the rows that both answer\n\n"
        + _table(head, rows)
        + "\n\nΔ is teacher minus rival, ± two standard errors over rows."
    )


def _strength(rivals: Sequence[Rival]) -> str:
    rows = []
    for rival in rivals:
        s = rival.strength
        shares = (s.better, s.worse, s.equal, s.ratio, s.hit_ratio, s.first_only, s.second_only)
        rows.append([rival.name, *(_percent(share) for share in shares)])
    head = ["rival", "teacher better", "worse", "equal", "ratio (Table 2)", "ratio where one hits"]
    return "## Who ranks the target better (Table 2)\n\n" + _table(
        [*head, "only teacher hits", "only rival hits"], rows
    )


def _overlap(audit: Audit, model: Rival) -> str:
    found = model.overlap
    if found is None:
        return ""
    rows = [
        ["teacher only", _percent(found.first_only), _percent(found.hits_first_only)],
        [f"{model.name} only", _percent(found.second_only), _percent(found.hits_second_only)],
        ["overlapped", _percent(found.shared), _percent(found.hits_shared)],
    ]
    return f"## What the top {audit.k} share (Table 3)\n\n" + _table(["space", "items", "of them hits"], rows)


def _slices(audit: Audit, benchmark: Rival) -> str:
    rows = [
        [
            s.name,
            f"{s.rows:,}",
            f"{s.teacher:.4f}",
            f"{s.baseline:.4f}",
            f"{s.difference.mean:+.4f} ± {2 * s.difference.error:.4f}",
        ]
        for s in audit.slices
    ]
    head = ["rows", "count", f"teacher HR@{audit.k}", f"baseline HR@{audit.k}", f"Δ NDCG@{audit.k}"]
    return f"## Where: against {benchmark.name}, the best free baseline\n\n" + _table(head, rows)


def _profiles(audit: Audit) -> str:
    lists, distances = audit.lists, audit.distances
    if lists is None:
        return ""
    where = audit.split if audit.coverage[audit.split].covered else "train"
    rows = [
        ["different items", f"{lists.distinct_items:,} ({lists.distinct_share:.1%} of the catalogue)"],
        [
            "training targets an item",
            f"{lists.mean_popularity:.1f} (catalogue: {lists.catalogue_popularity:.1f})",
        ],
        ["items among the 10 % most popular", _percent(lists.head_share)],
        ["items of the row's own history", _percent(lists.history_share)],
        ["repeated titles", _percent(lists.duplicate_titles)],
        ["filled slots", _percent(lists.filled)],
    ]
    text = f"## The lists ({lists.rows:,} {where} rows, top {lists.k})\n\n" + _table(["", "value"], rows)
    if distances is None or not (distances.quantiles or distances.target_quantiles):
        return text
    named = (("listed items", distances.quantiles), ("true item", distances.target_quantiles))
    quantiles = [[name, *(f"{value:.4g}" for value in values)] for name, values in named if values]
    facts = [
        f"- exp(-d) uniform: {_percent(distances.uniform_rows)} of the rows; "
        f"on one item: {_percent(distances.one_hot_rows)}",
        f"- exp(-d) of the true item below 1e-8: {_percent(distances.vanishing_targets)} of the rows",
    ]
    if distances.order_correlation is not None:
        facts.append(f"- nearest distance and hit: Spearman {distances.order_correlation:+.3f}")
    head = ["distance", *(f"{100 * q:g} %" for q in QUANTILES)]
    return f"{text}\n\n## The distances\n\n{_table(head, quantiles)}\n\n" + "\n".join(facts)
