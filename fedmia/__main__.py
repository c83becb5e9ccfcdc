"""``python -m fedmia``."""

from fedmia.cli import main

main()
