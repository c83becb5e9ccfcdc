import logging
import warnings

import pytest

from fedmia.runlog import logging_to, quiet


@pytest.fixture
def untouched():
    """Put back the process-wide state that ``quiet`` is there to change."""
    root = logging.getLogger()
    before = [
        (logger, logger.handlers[:], logger.propagate, logger.level)
        for logger in (root, *map(logging.getLogger, ("flwr", "ray", "matplotlib")))
    ]
    with warnings.catch_warnings():
        yield
        logging.captureWarnings(capture=False)
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_lines_of_a_run_stand_in_its_file_and_no_others(tmp_path):
    log = logging.getLogger("fedmia.test")
    log.warning("before")
    with logging_to(tmp_path / "run.log"):
        log.info("during ε")
        log.debug("detail")
    log.warning("after")

    (line,) = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert line.endswith("INFO fedmia.test: during ε")


def test_a_run_that_fails_leaves_logging_as_it_was(tmp_path):
    root = logging.getLogger()
    before = root.level, root.handlers[:]

    with pytest.raises(RuntimeError), logging_to(tmp_path / "run.log"):
        raise RuntimeError

    assert (root.level, root.handlers) == before


def test_runs_one_after_the_other_do_not_share_lines(tmp_path):
    for name in ("a", "b"):
        with logging_to(tmp_path / name):
            logging.getLogger().info("line %s", name)

    assert "line a" in (tmp_path / "a").read_text()
    assert "line a" not in (tmp_path / "b").read_text()


@pytest.mark.usefixtures("untouched")
def test_flower_writes_to_the_file_once_and_to_the_terminal_not_at_all(tmp_path, capfd):
    flower = logging.getLogger("flwr")
    flower.addHandler(logging.StreamHandler())
    flower.propagate = False

    quiet()
    with logging_to(tmp_path / "run.log"):
        flower.info("round one")
        flower.debug("detail")

    text = (tmp_path / "run.log").read_text()
    assert text.count("round one") == 1
    assert "detail" not in text
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("untouched")
def test_warnings_go_to_the_file_too(tmp_path, capfd):
    quiet()
    with logging_to(tmp_path / "run.log"):
        warnings.warn("beware", UserWarning, stacklevel=1)

    assert "beware" in (tmp_path / "run.log").read_text()
    assert capfd.readouterr().err == ""
