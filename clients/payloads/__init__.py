"""How updates are written in few bytes: pairs of ``encode`` and ``decode``, one form a file."""
