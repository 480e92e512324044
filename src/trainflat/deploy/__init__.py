"""From a user's own table to the smallest good model: search, choose, keep."""

from trainflat.deploy.search import search
from trainflat.deploy.smaller import Smaller
from trainflat.deploy.text import compress_text

__all__ = ["Smaller", "compress_text", "search"]
