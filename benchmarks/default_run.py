"""Wall time and peak memory of ``fedmia run`` with defaults, Ray's start included.

    python benchmarks/default_run.py [overrides ...]

Runs it twice and reports the second, when files are in the page cache.
"""

import subprocess
import sys
import tempfile
import time

import psutil


def measure(overrides: list[str]) -> tuple[float, dict[str, float]]:
    """Return seconds, and by kind of process the largest resident set in MB."""
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fedmia", "run", f"output_dir={folder}", *overrides]
        start = time.perf_counter()
        run = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None:
            for process in [run, *run.children(recursive=True)]:
                try:
                    name = "fedmia run" if process.pid == run.pid else process.name()[:24]
                    size = process.memory_info().rss / 2**20
                except psutil.Error:
                    continue
                peaks[name] = max(peaks.get(name, 0.0), size)
            time.sleep(0.1)
        seconds = time.perf_counter() - start
        if run.returncode:
            raise SystemExit(f"fedmia run ended with {run.returncode}")
    return seconds, peaks


def main() -> None:
    measure(sys.argv[1:])
    seconds, peaks = measure(sys.argv[1:])
    print(f"fedmia run {' '.join(sys.argv[1:])}: {seconds:.1f} s wall")
    for name, size in sorted(peaks.items(), key=lambda item: -item[1]):
        print(f"{size:8.0f} MB  {name}")


if __name__ == "__main__":
    main()
