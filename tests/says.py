"""A generator that answers from the prompt by a function, and counts what it was asked: a language model for tests."""

import re

from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation, one_by_one


class Says:
    """Answers each prompt with ``answer(prompt)``; None fails, and an answer may end the process (an exception)."""

    name = "says"

    def __init__(self, answer, version="1"):
        self.answer, self.asked = answer, []
        self.settings = {"model": self.name, "version": version}

    @property
    def fingerprint(self):
        return fingerprint(str(self.settings))

    def batches(self, requests):
        return one_by_one(requests)

    def generate(self, requests, progress=None):
        for request in requests:
            self.asked.append(request)
            text = self.answer(request.prompt)
            yield (
                Generation(request.key, error="refused") if text is None else Generation(request.key, (text,))
            )
            if progress is not None:
                progress(1)


def told_titles(prompt):
    """Return the titles of a prompt's numbered list."""
    return [line.split(". ", 1)[1] for line in prompt.splitlines() if re.match(r"^\d+\. ", line)]


def groups_of(prompt):
    """Return the saga of the ring shop that most told titles belong to, and all of them."""
    found = [title.split(" part")[0] for title in told_titles(prompt) if " part" in title]
    return max(found, key=found.count), found


def rationale(prompt):
    """Write a rationale in JSON that names the saga told most."""
    saga, _ = groups_of(prompt)
    return f'{{"preferences": "likes {saga}", "categories": ["{saga}"], "items": ["{saga} part 1", "{saga} part 2"]}}'
