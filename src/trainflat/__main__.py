"""``python -m trainflat`` is ``trainflat``, for where the command is not on the path."""

from __future__ import annotations

from trainflat.cli import main

main()
