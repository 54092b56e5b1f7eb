"""What the routes share: the models, limits, counts, and what the page shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from recdistill.serve.examples import Examples
from recdistill.serve.fleet import Fleet
from recdistill.serve.limits import Limits
from recdistill.serve.logs import log
from recdistill.serve.metrics import Metrics


class State:
    """What the routes share.

    Parameters
    ----------
    fleet
        The models.
    limits
        Of a request.
    metrics
        Counts and times.
    examples
        Stored lists of a teacher.
    plots
        Name to bytes of the pictures of a report.
    """

    def __init__(
        self, fleet: Fleet, limits: Limits, metrics: Metrics, examples: Examples, plots: Mapping[str, bytes]
    ) -> None:
        self.fleet, self.limits, self.metrics = fleet, limits, metrics
        self.examples, self.plots = examples, plots
        self.ready = False

    def note_models(self) -> None:
        """Put the facts of the models into the metrics."""
        for slot in self.fleet.slots.values():
            self.metrics.put("recdistill_model_items", len(slot.now.engine.items), model=slot.name)
            self.metrics.put("recdistill_model_share", slot.share, model=slot.name)

    def note_reload(self, name: str, result: str, error: Exception | None) -> None:
        """Count and log a try to take over a new export."""
        self.metrics.add("recdistill_reloads_total", model=name, result=result)
        level = logging.INFO if error is None else logging.ERROR
        log(
            "reload",
            level=level,
            model=name,
            result=result,
            **({} if error is None else {"reason": str(error)}),
        )
        if error is None:
            self.note_models()
