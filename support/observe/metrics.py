"""Prometheus metrics of a frontend, worker or etcd member."""

import math

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.asking import NoAnswer, ask
from support.errors import SuiteError


class ScrapeError(SuiteError):
    """The endpoint gave no metrics; says which and why."""


class Exposition:
    """One exposition. Only the lines of the series asked for are parsed, since a frontend serves hundreds of others.

    Attributes:
        text: as it was served.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines = text.splitlines()
        self._samples: dict[str, list[Sample]] = {}

    def series(self, name: str, **labels: str) -> list[Sample]:
        """The series called ``name`` (as it is served, with ``_total``, ``_bucket``, ...) that carry these labels.

        Raises:
            ValueError: such a line is not in Prometheus' format.
        """
        if name not in self._samples:
            starts = (name + "{", name + " ", name + "\t")
            lines = "".join(line + "\n" for line in self._lines if line.startswith(starts))
            families = text_string_to_metric_families(lines)
            self._samples[name] = [sample for family in families for sample in family.samples]
        return [
            sample
            for sample in self._samples[name]
            if all(sample.labels.get(key) == value for key, value in labels.items())
        ]

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over :meth:`series`; None if there is none, which is not the same as 0."""
        matching = self.series(name, **labels)
        return math.fsum(sample.value for sample in matching) if matching else None


def scrape(url: str, timeout: float = 2.0) -> Exposition:
    """Read an endpoint such as ``http://10.0.0.2:8000/metrics``; ``timeout`` seconds for connecting and for each read.

    Raises:
        ScrapeError: no connection, no answer in time, or a status other than 200.
        ValueError: ``url`` is not an HTTP URL.
    """
    try:
        answer = ask(url, timeout)
    except NoAnswer as error:
        raise ScrapeError(f"no metrics from {url}: {error}") from error
    if answer.status != 200:
        raise ScrapeError(f"{url} answered {answer.status}; expected metrics with status 200")
    return Exposition(answer.text)
