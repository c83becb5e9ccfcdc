"""The command line: verbs, each a few lines over the library; overrides go to Hydra unchanged."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedmia import __version__
from fedmia.console import compare, complain, progress, show, stdout
from fedmia.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

app = typer.Typer(
    name="fedmia",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides of conf/, e.g. num_rounds=10."),
]
ConfigDir = Annotated[
    list[Path] | None,
    typer.Option("--config-dir", help="A folder with plug-ins' yaml files, laid out like conf/."),
]


def main() -> None:
    """Run the command line and end the process with its exit code.

    0: all went well. 1: a run failed, after writing what it had. 2: bad input, nothing was run.
    130: interrupted.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.path.insert(0, str(Path.cwd()))  # plug-ins may live where the user works
    try:
        app(prog_name="fedmia")
    except ConfigError as error:
        complain(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        complain("interrupted; complete rounds are kept")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Measure how much a federated-learning system leaks about who was in it."""
    if version:
        print(f"fedmia {__version__}")
        raise typer.Exit


@app.command()
def run(
    overrides: Overrides = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Run every combination of a,b,c values.")
    ] = False,
    config_dir: ConfigDir = None,
    cfg: Annotated[
        bool, typer.Option("--cfg", help="Print the resolved configuration and stop.")
    ] = False,
) -> None:
    """Train a federation, observe it, attack it, and write what leaked.

    Everything is an override of conf/ (see **fedmia list**):

        fedmia run
        fedmia run num_rounds=10 partition.samples_per_client=40
        fedmia run dataset=breast_cancer observer.vantage=participant
        fedmia run -m seed=0,1,2 strategy=fedavg,fedmedian

    The last line printed is the run directory, with result.json, report.html, run.log and
    transcript/. With -m, it is the folder that holds them all, and before it stands what
    **fedmia report** says of that folder: a table, and comparison.html in it. Exit code 0: done;
    1: a run failed, after writing what it had; 2: bad input, nothing was trained.
    """
    from fedmia import config, experiment

    overrides, dirs = overrides or [], config_dir or []
    jobs = config.expand(overrides, dirs) if multirun else [overrides]
    checked = [config.compose(job, dirs) for job in jobs]
    if cfg:
        from omegaconf import OmegaConf

        for settings in checked:
            print(OmegaConf.to_yaml(settings, resolve=True), end="")
        return
    from fedmia.runlog import quiet

    quiet()
    stages = [experiment.check(settings) for settings in checked]
    ready = iter(stages if len(stages) == 1 else [None] * len(stages))
    del stages
    codes: list[int] = []
    folders: list[Path] = []

    def job(settings: "DictConfig", run_dir: Path) -> None:
        folders.append(run_dir)
        try:
            with progress("starting", settings.num_rounds) as bar:
                result = experiment.run(
                    settings, run_dir, bar.on_round, stage=next(ready), on_attack=bar.on_attack
                )
        except ConfigError as error:
            complain(str(error))
            codes.append(2)
            return
        show(result)
        codes.append(0 if result["status"] == "ok" else 1)
        print(run_dir.resolve(), flush=True)

    try:
        config.launch(job, overrides, ["--multirun"] if multirun else [], dirs)
    except KeyboardInterrupt:
        complain("interrupted; complete rounds are kept and can be attacked: fedmia attack RUN_DIR")
        if folders:
            print(folders[-1].resolve(), flush=True)
        raise typer.Exit(130) from None
    if multirun and folders:
        sweep = folders[0].resolve().parent
        if len(codes) - codes.count(2) > 1:
            _compare(sweep)
        print(sweep, flush=True)
    if any(codes):
        raise typer.Exit(max(codes))


@app.command()
def plan(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Say what a run's candidates can show, without training.

    For each false-positive rate of metrics.fprs: whether so many held-out records resolve it, how
    wide the interval of the true-positive rate would be for an attack with an AUC of 0.7, and how
    many held-out records it takes:

        fedmia plan
        fedmia plan candidates.nonmembers=300 partition.samples_per_client=40
    """
    from fedmia import config, experiment
    from fedmia.planning import plan as plan_
    from fedmia.report.planning import plan_table
    from fedmia.runlog import quiet

    quiet()
    found = plan_(experiment.check(config.compose(overrides or [], config_dir or [])))
    console = stdout()
    console.print(plan_table(found.rows))
    console.print(found.text, highlight=False)


@app.command()
def attack(
    run_dir: Annotated[Path, typer.Argument(help="A run directory with a transcript.")],
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
) -> None:
    """Attack the transcript of a run again, without training.

    Overrides may change attack, knowledge, metrics and observer.vantage (to one that sees less):

        fedmia attack runs/2026-01-31_12-00-00-000000
        fedmia attack RUN_DIR attack=fedmia attack.fedmia_i.measurement=logit_gap
        fedmia attack RUN_DIR observer.vantage=final_model

    Works on runs that died or still go on: all complete rounds are used. The last line printed
    is the folder, below RUN_DIR, that holds the new result.json and report.html.
    """
    from fedmia import experiment
    from fedmia.runlog import quiet

    quiet()
    with progress("reading", 1) as bar:
        folder, result = experiment.attack(
            run_dir, overrides or [], config_dir or [], bar.on_attack
        )
    show(result)
    print(folder.resolve(), flush=True)
    if result["status"] != "ok":
        raise typer.Exit(1)


@app.command()
def report(
    dirs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run or sweep directories.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the page.")
    ] = None,
) -> None:
    """Compare runs: a table here, and a page to keep.

    DIR is a run directory or a folder of them. Runs that differ only in their seed are pooled;
    everything else that differs becomes a column:

        fedmia report runs/2026-01-31_12-00-00-000000
        fedmia report runs/sweep_a runs/sweep_b -o comparison.html

    The last line printed is the page, in the first DIR unless -o names another place.
    """
    print(compare(dirs, output).resolve(), flush=True)


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Argument(help="e.g. attack, dataset, strategy.")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """List the options of every configuration group, or of one.

    GROUP is a folder of conf/, as attack, dataset or strategy. Each option is a file
    conf/GROUP/OPTION.yaml, where every knob has a comment:

        fedmia list attack
        fedmia run attack=fedmia attack.fedmia_i.measurement=logit_gap

    An attack's file may make several rows, or one of another name: they are listed as "rows", and
    a knob is attack.ROW.KEY.
    """
    from rich.table import Column, Table
    from rich.text import Text

    from fedmia import config

    dirs = config_dir or []
    known = config.groups(dirs)
    if group is not None and group not in known:
        raise ConfigError(f"group={group}: expected one of {', '.join(known)}")
    table = Table(Column("option", no_wrap=True), "what it is", box=None, pad_edge=False)
    for name in [group] if group else known:
        for option in config.options(name, dirs):
            said = config.description(name, option, dirs)
            if name == "attack" and (rows := _rows(option, dirs)) != [option]:
                said += f"\nrows: {', '.join(rows)}"
            table.add_row(f"{name}={option}", Text(said))
    Console().print(table)


def _compare(sweep: Path) -> None:
    """Compare the runs of a sweep; they stay as good as they are where that cannot be done."""
    try:
        print(f"comparison: {compare([sweep])}")
    except Exception as error:
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        said = " ".join(str(error).split())
        complain(f"the runs are written, but could not be compared: {kind}{said}")


def _rows(option: str, config_dirs: list[Path]) -> list[str]:
    """Return the names under which an option of ``attack`` appears in keys and results."""
    import yaml

    from fedmia import config

    files = [folder / "attack" / f"{option}.yaml" for folder in (*config_dirs, config.CONF)]
    content = yaml.safe_load(next(file for file in files if file.is_file()).read_text())
    return [str(key) for key, value in (content or {}).items() if isinstance(value, dict)]
