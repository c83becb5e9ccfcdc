import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest
from cli_calls import SMALL, Ended

from fedmia.cli import main


@pytest.fixture(scope="session")
def fedmia():
    """Call the command line in this process, as ``fedmia ARGUMENTS`` would be in another."""

    def call(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["fedmia", *map(str, arguments)]),
            mock.patch.object(sys, "path", [*sys.path]),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        logging.captureWarnings(capture=False)
        return Ended(ended.value.code or 0, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def run(fedmia, tmp_path_factory):
    """Call ``fedmia run`` on a small federation, in a new output folder unless one is named."""

    def call(*arguments):
        named = any(str(argument).startswith("output_dir=") for argument in arguments)
        folder = [] if named else [f"output_dir={tmp_path_factory.mktemp('runs')}"]
        return fedmia("run", *folder, *SMALL, *arguments)

    return call


@pytest.fixture(scope="session")
def finished(run):
    """A small run that went well; not to be written to."""
    ended = run()
    assert ended.code == 0, ended.err
    return ended
