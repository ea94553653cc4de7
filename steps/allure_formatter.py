"""behave's formatter for Allure, ``-f steps.allure_formatter:AllureFormatter -o FOLDER``; the rest is in support/."""

from pathlib import Path

from behave.formatter.base import Formatter

from support.report.allure import Results


class AllureFormatter(Results, Formatter):
    """What behave takes for a formatter; it is here, as support/ knows nothing of behave."""

    name = "allure"
    description = "A file for each scenario, for an Allure report"

    def __init__(self, stream_opener, config):
        Formatter.__init__(self, stream_opener, config)
        Results.__init__(self, Path(stream_opener.name), config)

    def close(self):
        """Keep what is there of a scenario that was broken off, with no end of its feature."""
        self.finish()
        super().close()
