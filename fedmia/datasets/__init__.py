"""Where records come from: one source a file, all handing over a clean ``Dataset``."""
