"""The script of the monitoring job; `tabular.monitor` does the work."""

from pathlib import Path

if __name__ == "__main__":
    from sm_mlops.tabular import monitor
    from sm_mlops.tabular.failure import run

    run(monitor.main, Path(__file__).parent)
