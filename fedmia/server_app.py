"""The ServerApp that ``flwr run`` starts: the same experiment on the runtime's own grid."""

import shlex
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedmia import config, experiment

app = ServerApp()
"""Its run config's ``overrides`` name the experiment."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run config names; raise if it failed, so that the run does."""
    overrides = shlex.split(str(context.run_config.get("overrides", "")))
    settings = config.compose(overrides)
    stage = experiment.check(settings)
    run_dir = Path(settings.output_dir).resolve() / f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%S-%f}"
    config.save(settings, run_dir / ".hydra", overrides)
    result = experiment.run(settings, run_dir, grid=grid, stage=stage)
    print(run_dir, flush=True)
    if result["status"] != "ok":
        raise RuntimeError(f"{run_dir}: {result['reason']}")
