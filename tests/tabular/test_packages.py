"""The team's own packages and requirements in the jobs and the endpoint, through the image's own
entry points and without an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from container_case import (
    CURED,
    SKLEARN,
    bundles,
    container,
    files_below,
    require_sklearn,
    succeeded,
)
from repos import make_repo
from sandbox_cases import IMAGE
from sm_mlops import images
from sm_mlops.bundle import Bundle
from sm_mlops.training.definition import compile_pipeline
from wheels import make_wheel

pytestmark = pytest.mark.slow

USES = """
from pathlib import Path
import forest
from helpers import deep
from shapes import square
assert (Path(deep.__file__).parent / "words.txt").read_text() == "w"
SEEN = f"SEEN {forest.VERSION} {deep.NUMBER} {square.SIDES}"
"""
PRINTS = USES + "\nif __name__ == '__main__':\n    print(SEEN)\n"
TRAINS = (
    PRINTS
    + """
    import os, shutil
    from sm_mlops.tabular import packaging
    for name, path in packaging.collect(Path(__file__).parent, ["inference.py"]).items():
        target = Path(os.environ["SM_MODEL_DIR"], "code", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
"""
)
ANSWERS = (
    USES
    + """
def model_fn(model_dir):
    return SEEN
def transform_fn(model, body, content_type, accept):
    return model, "text/plain"
"""
)
RIVALS = """
import os, subprocess, sys
from pathlib import Path
import forest
from sm_mlops.tabular import evaluate, install
SAY = "import forest, numpy; print('SEEN', forest.VERSION, numpy.__version__)"
if __name__ == "__main__":
    given = Path(__file__).parents[1]
    say = Path(os.environ["TMPDIR"], "say.py")
    say.write_text(SAY)
    for model in ("champion", "model", "none", "broken"):
        command = [*install.launcher(given / model), str(say)]
        print(model, len(command), flush=True)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        print(done.returncode, done.stderr.strip(), flush=True)
    assert forest.VERSION == "1.0"
"""
SEEN = "SEEN 1.0 7 4"


# The image's own way, and the sandbox's, which leaves pip out where nothing needs it.
ENVIRONMENTS = [
    pytest.param(CURED, id="image"),
    pytest.param(None, id="sandbox", marks=pytest.mark.long),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    return make_sources(tmp_path_factory.mktemp("packages"), "xgboost-3.2-0")


def make_sources(folder: Path, image: str) -> Mapping[str, Bundle]:
    """Return the code of each step of a repo whose scripts say what they find."""
    repo = make_repo(folder / "repo")
    make_wheel(folder / "index", "forest", "1.0")
    files = {
        "preprocess.py": PRINTS,
        "train.py": TRAINS,
        "evaluate.py": RIVALS,
        "inference.py": ANSWERS,
        "helpers/__init__.py": "",
        "helpers/deep/__init__.py": "NUMBER = 7\n",
        "helpers/deep/words.txt": "w",
        "shapes/square.py": "SIDES = 4\n",
        "requirements.txt": "forest==1.0\n",
    }
    if image != images.DEFAULT:
        files["evaluate.py"] = PRINTS  # its report would need a wheel of matplotlib
    for name, text in files.items():
        (repo.root / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (repo.root / "model" / name).write_text(text)
    settings = repo.configure(image=image, hyperparameters=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
        return bundles(compile_pipeline(settings, "1" * 12))


@pytest.fixture(scope="module")
def of_sklearn(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Bundle]:
    require_sklearn()
    return make_sources(tmp_path_factory.mktemp("packages"), "sklearn-1.9-0")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_packages_reach_training_and_from_there_the_endpoint(
    sources: Mapping[str, Bundle], environment: dict[str, str] | None
) -> None:
    train_and_serve(sources, IMAGE, environment)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_scikit_learn_image_trains_with_its_own_toolkit_and_serves(
    of_sklearn: Mapping[str, Bundle], environment: dict[str, str] | None
) -> None:
    said = train_and_serve(of_sklearn, SKLEARN, environment)
    assert "sagemaker-training" in said
    with container(image=SKLEARN) as c:
        assert SEEN in c.process(of_sklearn["preprocess.py"], [])


def train_and_serve(
    sources: Mapping[str, Bundle], image: str, environment: dict[str, str] | None
) -> str:
    """Train, serve what training has packed, and return what training printed."""
    with container(image=image) as c, container(image=image) as endpoint:
        said = succeeded(c.train(sources["train.py"], {}, {}, environment))
        assert SEEN in said
        model = c.base / "model"
        assert {
            *("code/helpers/deep/words.txt", "code/shapes/square.py", "code/requirements.txt"),
            *("code/constraints.txt", "code/wheels/forest-1.0-py3-none-any.whl"),
        } < set(files_below(model))
        variables = {
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
        }
        with endpoint.serve(model, {**variables, **CURED}) as served:
            assert served.wait() == 200
            assert served.ask("x", "text/csv")[2] == SEEN
    return said


def test_packages_reach_a_processing_job(sources: Mapping[str, Bundle]) -> None:
    with container() as c:
        assert SEEN in c.process(sources["preprocess.py"], [])


def test_a_champion_with_other_requirements_is_scored_with_its_own(
    sources: Mapping[str, Bundle], tmp_path: Path
) -> None:
    old = make_wheel(tmp_path, "forest", "0.9")
    own = dict(sources["evaluate.py"].files)["requirements.txt"]
    lines = b"--no-index\n--find-links wheels\nforest==0.9\n"
    with container() as c:
        for model, text in (("champion", lines), ("broken", lines), ("model", own)):
            files: dict[str, bytes | Path] = {"code/requirements.txt": text}
            if model == "champion":
                files[f"code/wheels/{old.name}"] = old
            c.bring(f"processing/input/{model}", files)
        said = c.process(sources["evaluate.py"], [])
        assert not (c.base / "output/message").exists()
    champion, model, none, broken = re.split("^(?:model|none|broken) ", said, flags=re.MULTILINE)
    assert champion.splitlines()[-2:] == ["SEEN 0.9 2.1.0", "0 "]
    assert model.splitlines() == none.splitlines() == ["2", "SEEN 1.0 2.1.0", "0 "]
    assert broken.splitlines()[-1] == (
        "1 error: model/requirements.txt: pip cannot install it: "
        "No matching distribution found for forest==0.9"
    )


def test_a_package_that_cannot_be_installed_fails_the_job_in_one_line(
    sources: Mapping[str, Bundle],
) -> None:
    code = sources["preprocess.py"]
    files = tuple((n, b"") if n.startswith("wheels/") else (n, c) for n, c in code.files)
    less = Bundle(code.script, tuple((n, c) for n, c in files if not n.startswith("wheels/")))
    with container() as c:
        folder = c.bring("processing/input/code", dict(less.files))
        c.allow("output")
        assert less.installer
        process = c.start(["python3", folder / less.installer, folder / less.script])
        said, _ = process.communicate()
        assert process.returncode == 2, said
        message = (c.base / "output/message").read_text()
    assert message == (
        "model/requirements.txt: pip cannot install it: "
        "No matching distribution found for forest==1.0"
    )
