"""Time from "approved" to "production answers" in the sandbox, with the commands a person runs.

Deploys and tests staging, deploys, tests and invokes production; no one waits for a reviewer. The
reference is the training run before it, on the same machine at the same time.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from generated import clean_copy  # noqa: E402

LIMIT = 15
ROWS = "rows.csv"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        template = str(clean_copy(Path(folder) / "template"))
        repo = Path(cookiecutter(template, no_input=True, output_dir=folder, default_config=True))

        def mlops(*arguments: str) -> float:
            """Run `mlops --sandbox ...`; return its wall time in seconds."""
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "sm_mlops", "--sandbox", *arguments],
                cwd=repo,
                check=True,
                stdout=subprocess.PIPE,
            )
            return time.perf_counter() - begun

        mlops("sandbox", "up")
        try:
            training = mlops("run")
            approved = mlops("approve", "1")
            arn = "arn:aws:sagemaker:us-east-1:123456789012:model-package/my-model/1"
            rows = (repo / "data" / "breast-cancer.csv").read_text().splitlines()[:2]
            (repo / ROWS).write_text("\n".join(rows) + "\n")
            steps = {
                "deploy staging": mlops("deploy", "staging", "--model-package-arn", arn),
                "smoke staging": mlops("smoke", "staging"),
                "deploy production": mlops("deploy", "production", "--model-package-arn", arn),
                "smoke production": mlops("smoke", "production"),
                "invoke production": mlops("invoke", "production", ROWS),
            }
        finally:
            mlops("sandbox", "down")
    whole = sum(steps.values())
    for step, seconds in {"approve": approved, **steps}.items():
        print(f"  {step:<18} {seconds:5.1f} s")
    print(
        f"approved → production answers: {whole:.1f} s, at most {LIMIT} "
        f"({whole / training:.2f} times the training run's {training:.1f} s)"
    )


if __name__ == "__main__":
    main()
