"""What an audit means: warnings, and an answer to "worth distilling? where?"."""

from __future__ import annotations

from typing import Final

from recdistill.knowledge.findings import Audit, Rival

#: A dozen slices are looked at: two standard errors would be passed by chance in one of two audits.
_SLICE_ERRORS: Final = 3.0


def list_warnings(audit: Audit) -> list[str]:
    """Return what to know before distilling, most serious first."""
    warnings = [f"Alignment: {check.name}: {check.detail}." for check in audit.checks if not check.passed]
    train = audit.coverage["train"]
    if train.covered < train.rows:
        warnings.append(
            f"Only {train.share:.1%} of the training rows are covered ({train.rows - train.covered:,} are "
            "not): distil with train.coverage=skip or train.coverage=mask, or run recdistill teach again."
        )
    if not audit.coverage[audit.split].covered:
        warnings.append(
            f"No {audit.split} row is covered: the teacher cannot be judged on rows it did not learn from."
        )
    return [*warnings, *_list_warnings(audit), *_distance_warnings(audit), *_gap_warnings(audit)]


def _list_warnings(audit: Audit) -> list[str]:
    lists, found = audit.lists, []
    if lists is None:
        return ["There are no rankings: only strategies on embeddings can be used."]
    room = min(lists.catalogue, lists.rows * lists.k)  # few lists cannot show many items
    if lists.distinct_items < 0.05 * room:
        found.append(
            f"The lists are alike: {lists.distinct_items:,} different items in {lists.rows:,} lists "
            f"({lists.distinct_share:.1%} of the catalogue)."
        )
    if lists.duplicate_titles > 0.01:
        found.append(
            f"{lists.duplicate_titles:.1%} of the listed items repeat a title of the same list: "
            "Knowledge.without_duplicates keeps one of each."
        )
    if lists.filled < 0.999:
        found.append(
            f"{1 - lists.filled:.1%} of the first {lists.k} slots are empty: where the teacher gives no "
            f"target_rank, ranks come from the lists and HR@{audit.k} is understated."
        )
    if not audit.filter_seen and lists.history_share > 0.1:
        found.append(f"{lists.history_share:.1%} of the listed items are already in the row's history.")
    return found


def _distance_warnings(audit: Audit) -> list[str]:
    distances, found = audit.distances, []
    if distances is None:
        return []
    if distances.uniform_rows is not None and distances.uniform_rows > 0.5:
        found.append(
            f"The confidence exp(-d) is uniform in {distances.uniform_rows:.1%} of the rows: it would say "
            "nothing. Use the corrected variant of importance, which scales distances by their median."
        )
    if distances.one_hot_rows is not None and distances.one_hot_rows > 0.5:
        found.append(
            f"The confidence exp(-d) puts all weight on one item in {distances.one_hot_rows:.1%} of the "
            "rows. Use the corrected variant of importance, which scales distances by their median."
        )
    if distances.vanishing_targets is not None and distances.vanishing_targets > 0.5:
        found.append(
            f"exp(-d) of the true item vanishes in {distances.vanishing_targets:.1%} of the rows (eq. 7): "
            "scale the distances by their median (the corrected variant does)."
        )
    if distances.order_correlation is not None and distances.order_correlation <= 0:
        found.append(
            f"Near lists are not better lists (Spearman {distances.order_correlation:+.2f}): a confidence "
            "from the nearest distance would mislead; set its γ to 0."
        )
    return found


def _gap_warnings(audit: Audit) -> list[str]:
    found = []
    train, judged = audit.metrics.get("train"), audit.metrics.get(audit.split)
    key = f"hr@{audit.k}"
    if audit.split != "train" and train and judged and key in train and train[key] > 1.5 * judged[key] > 0:
        found.append(
            f"The teacher is much better on training rows (HR@{audit.k} {train[key]:.4f} against "
            f"{judged[key]:.4f}): it learned from them, and its confidence there is optimistic."
        )
    model = audit.model
    if model and model.teacher_metrics[key] < 0.5 * model.metrics[key]:
        found.append(
            f"The teacher hits less than half as often as {model.name} (HR@{audit.k} "
            f"{model.teacher_metrics[key]:.4f} against {model.metrics[key]:.4f})."
        )
    return found


def give_verdict(audit: Audit) -> str:
    """Answer in plain words whether the teacher is worth distilling, and where."""
    broken = [check.name for check in audit.checks if not check.passed]
    if broken:
        return (
            f"Do not distil: knowledge and dataset do not belong together ({', '.join(broken)}). "
            "Make the knowledge anew with recdistill teach."
        )
    failed = [f"{gate.name}: {gate.detail}" for gate in audit.gates if gate.fatal and gate.status == "failed"]
    if failed:
        return f"Do not distil: the teacher fails a quality gate on validation rows. {'. '.join(failed)}."
    if audit.split not in audit.metrics:
        return (
            f"Cannot be judged: the teacher has no ranks on {audit.split} rows. Ask it about them too, or "
            "compare students with and without it: recdistill compare."
        )
    parts = []
    same = [rival.name for rival in audit.baselines if rival.strength.equal == 1]
    if same:
        parts.append(f"This teacher is the free model {same[0]}: its knowledge costs nothing.")
    if audit.benchmark:
        parts.append(_against_baseline(audit, audit.benchmark))
    if audit.model:
        parts.append(_against_model(audit, audit.model))
    return " ".join(parts) or (
        "Not compared with anything: a teacher is worth its cost where it beats what is free. Pass the "
        "baselines (recdistill knowledge audit does) and, with --run, a student."
    )


def _against_baseline(audit: Audit, best: Rival) -> str:
    key = f"ndcg@{audit.k}"
    theirs, ours = best.metrics[key], best.teacher_metrics[key]
    numbers = f"NDCG@{audit.k} {ours:.4f} against {theirs:.4f} of {best.name}, which is free"
    better = [s.name for s in audit.slices if s.difference.sign(_SLICE_ERRORS) > 0]
    worse = [s.name for s in audit.slices if s.difference.sign(_SLICE_ERRORS) < 0]
    if best.difference.sign() > 0:
        tail = f", though it is worse on {_listed(worse)}" if worse else ""
        return f"Worth distilling: {numbers}{tail}."
    verb = "Not worth distilling as a whole" if best.difference.sign() < 0 else "No better than what is free"
    if better:
        return f"{verb}: {numbers}. It is better on {_listed(better)}: let it teach there."
    return (
        f"{verb}: {numbers}, and it is better on no part of the rows. Distil the free one: "
        "recdistill teach graph."
    )


def _against_model(audit: Audit, model: Rival) -> str:
    strength, sign = model.strength, model.difference.sign()
    key = f"ndcg@{audit.k}"
    relation = {1: "is better than", 0: "is level with", -1: "is behind"}[sign]
    text = (
        f"It {relation} {model.name} (NDCG@{audit.k} {model.teacher_metrics[key]:.4f} against "
        f"{model.metrics[key]:.4f}), and in {strength.first_only:.1%} of the rows it alone of the two has "
        f"the target in its top {audit.k}"
    )
    if strength.first_only > 0.1 * max(strength.second_only + strength.both, 1e-12):
        return f"{text}: there is something to learn, if the student learns it on the right rows."
    return f"{text}: it adds little to what the student knows."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
