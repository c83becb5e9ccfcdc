"""The examples of ``docs/plugins.md`` work as they stand, command by command."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from fedmia import results

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
FILES = dict(re.findall(r"`(my_\w+/[\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = [
    command.split("#")[0].replace("\\\n", " ").strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for command in re.split(r"(?<!\\)\n", block)
    if command.startswith("fedmia ") and "…" not in command
]
SMALL = [
    "pool=serial",
    "candidates.nonmembers=60",
    "num_rounds=3",
    "metrics.bootstrap=100",
    "train.local_epochs=1",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder laid out as the document says, with the package on the import path."""
    folder = tmp_path_factory.mktemp("work")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    yield folder
    for name in [m for m in sys.modules if m.partition(".")[0] == "my_plugins"]:
        del sys.modules[name]


def test_the_document_shows_one_of_each_kind():
    kinds = {Path(name).parent.as_posix() for name in FILES if name.startswith("my_conf")}
    groups = {"attack", "strategy", "client", "client/defenses", "dataset", "model"}
    assert kinds == {f"my_conf/{group}" for group in groups}
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_document_works(fedmia, finished, workplace, monkeypatch, command):
    monkeypatch.chdir(workplace)
    _, verb, *arguments = shlex.split(command.replace("RUN_DIR", str(finished.folder)))
    extra = SMALL if verb == "run" else []
    ended = fedmia(verb, *arguments, *extra)
    assert ended.code == 0, ended.err
    if verb == "list":
        assert "grad_peak" in ended.out
    elif "--cfg" not in arguments:
        result = results.read(ended.folder / "result.json")
        assert {row["status"] for row in result["attacks"]} == {"ok"}
        assert "my_plugins." in str(result["config"]) or "--config-dir" not in arguments
