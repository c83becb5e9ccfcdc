import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session():
    """One Ray for all tests of the process; the pool finds it and leaves it up."""
    import ray

    from fedmia.grid.ray import start_ray

    start_ray(None)
    yield
    ray.shutdown()


def pytest_collection_modifyitems(items):
    """Begin with the files that start processes: one worker waits for those, the others compute."""
    starts = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in starts)
