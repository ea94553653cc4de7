"""behave's formatter that lists scenarios, ``-f steps.listing_formatter:ListingFormatter``; the rest is in support/."""

from pathlib import Path

from behave.formatter.base import Formatter

from support.run.selection import Listing


class ListingFormatter(Listing, Formatter):
    """What behave takes for a formatter; it is here, as support/ knows nothing of behave."""

    name = "listing"
    description = "The selected scenarios as JSON"

    def __init__(self, stream_opener, config):
        Formatter.__init__(self, stream_opener, config)
        Listing.__init__(self, Path(stream_opener.name), config)

    def close(self):
        """Write it, once all scenarios have been there."""
        self.finish()
        super().close()
