"""The walk over imports: what travels with a script, and what is refused before anything runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from sm_mlops.tabular import packaging
from sm_mlops.tabular.failure import DataError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def write(folder: Path, **files: str) -> None:
    """Write `a__b="..."` as a/b.py, an empty name as __init__.py."""
    for name, text in files.items():
        *parents, last = name.split("__")
        path = folder.joinpath(*parents, f"{last or '__init__'}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def team(folder: Path, *scripts: str) -> list[str]:
    """Return the names of the team's own files that travel with the scripts."""
    found = packaging.collect(folder, scripts or ["job.py"])
    return [name for name in found if not name.startswith("sm_mlops/")]


def test_a_script_brings_the_modules_it_imports_and_theirs_and_no_other(model: Path) -> None:
    write(model, job="import json\nimport one\n", one="import two\n", two="import one\n", three="")
    assert team(model) == ["job.py", "one.py", "two.py"]
    assert team(model, "job.py", "three.py") == ["job.py", "one.py", "three.py", "two.py"]


@pytest.mark.parametrize(
    "line",
    [
        "import helpers",
        "import helpers.deep.more",
        "import helpers.deep.more as m",
        "from helpers import deep",
        "from helpers.deep import more",
        "from helpers.deep.more import NUMBER",
        "from helpers import *",
        "def late():\n    import helpers",
        "try:\n    import helpers\nexcept ImportError:\n    helpers = None",
    ],
)
def test_a_package_is_taken_as_a_whole_with_its_other_files(model: Path, line: str) -> None:
    write(
        model,
        job=line,
        helpers__="",
        helpers__lazy="import alone\n",
        helpers__deep__="from . import more\nfrom .. import lazy\n",
        helpers__deep__more="NUMBER = 1\n",
        alone="",
    )
    (model / "helpers" / "words.txt").write_text("w")
    for leftover in ("__pycache__/x.pyc", ".cache/x", "old.pyc"):
        path = model / "helpers" / leftover
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    assert team(model) == [
        *("alone.py", "helpers/__init__.py", "helpers/deep/__init__.py", "helpers/deep/more.py"),
        *("helpers/lazy.py", "helpers/words.txt", "job.py"),
    ]


def test_a_folder_without_init_is_a_package_if_a_module_in_it_is_imported(model: Path) -> None:
    write(model, job="from shapes import square\n", shapes__square="")
    (model / "shapes" / "sizes.csv").write_text("1")
    assert team(model) == ["job.py", "shapes/sizes.csv", "shapes/square.py"]


def test_a_folder_that_has_the_name_of_an_installed_package_stays_behind(model: Path) -> None:
    write(model, job="import xgboost\nfrom xgboost import Booster\n", xgboost__notes="")
    assert team(model) == ["job.py"]


def test_a_package_comes_before_a_module_of_its_name(model: Path) -> None:
    write(model, job="import helpers\n", helpers="", helpers__="")
    assert team(model) == ["helpers/__init__.py", "job.py"]


def test_imports_for_type_checkers_only_are_not_bundled(model: Path) -> None:
    text = (
        "import typing\nif typing.TYPE_CHECKING:\n    import one, nowhere.x\nelse:\n    import two"
    )
    write(model, job=text, one="", two="")
    assert team(model) == ["job.py", "two.py"]


def test_imports_at_run_time_are_bundled(model: Path) -> None:
    write(model, job="import typing\nif not typing.TYPE_CHECKING:\n    import one\n", one="")
    assert team(model) == ["job.py", "one.py"]


def test_files_of_other_kinds_travel_when_they_are_named(model: Path) -> None:
    write(model, job="")
    (model / "words.txt").write_bytes(b"\xff\x00")
    assert team(model, "job.py", "words.txt") == ["job.py", "words.txt"]


def test_only_imported_modules_of_the_library_are_bundled(model: Path) -> None:
    write(model, job="from sm_mlops.tabular import metrics\nimport sm_mlops.tabular.failure\n")
    assert list(packaging.collect(model, ["job.py"])) == [
        "job.py",
        "sm_mlops/__init__.py",
        "sm_mlops/tabular/__init__.py",
        "sm_mlops/tabular/failure.py",
        "sm_mlops/tabular/measures.py",
        "sm_mlops/tabular/metrics.py",
        "sm_mlops/tabular/text.py",
    ]


def test_what_was_packed_packs_the_same_again(model: Path, tmp_path: Path) -> None:
    """Expect it because a training job packs the serving code from its own bundle."""
    write(
        model,
        job="import helpers\nfrom sm_mlops.tabular import encoding, packaging\n",
        helpers__="",
    )
    first = packaging.collect(model, ["job.py"])
    bundle = tmp_path / "bundle"
    for name, path in first.items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(path.read_bytes())
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\n"
    code += "from sm_mlops.tabular import packaging\n"
    code += "print(*packaging.collect(Path(sys.argv[1]), ['job.py']))"
    done = subprocess.run(
        [sys.executable, "-c", code, bundle], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"job": "x = (\n\n1 +\n"}, r"^model/job\.py, line \d: .*(never closed|invalid syntax)"),
        ({"job": "import one\n", "one": "def f():\nreturn 1\n"}, r"^model/one\.py, line 2: "),
        ({"job": "x = '\0'\n"}, r"^model/job\.py.*null bytes$"),
        ({"job": "x = " + "-" * 100_000 + "1\n"}, r"^model/job\.py: "),
        ({"job": "# coding: klingon\n"}, r"^model/job\.py: .*klingon"),
        ({"job": "\nimport helpers.lost\n", "helpers__": ""},
         r"^model/job\.py, line 2: cannot import helpers\.lost: there is no such module"),
        ({"job": "from helpers.lost import x\n", "helpers__": ""}, "cannot import helpers.lost"),
        ({"job": "import one.two\n", "one": ""}, "cannot import one.two: there is no such"),
        ({"job": "import a\n", "a__": "from .lost import x\n"},
         r"^model/a/__init__\.py, line 1: cannot import a\.lost"),
        ({"job": "from . import one\n", "one": ""}, r"line 1: a relative import works only inside"),
        ({"job": "import a\n", "a__": "from .. import job\n"}, r"a/__init__\.py, line 1: a relat"),
        ({"job": "import sm_mlops.settings\n"},
         r"line 1: cannot import sm_mlops\.settings: of sm_mlops a job has only sm_mlops\.tabular"),
        ({"job": "from sm_mlops import aws\n"}, "of sm_mlops a job has only sm_mlops.tabular"),
        ({"job": "from sm_mlops.tabular.lost import x\n"},
         r"cannot import sm_mlops\.tabular\.lost: there is no such module"),
        ({"job": "import random\n", "random": ""},
         r"^model/random\.py: hides another module random; rename it$"),
        ({"job": "from sm_mlops.tabular import tables\n", "csv": ""}, r"^model/csv\.py: hides"),
        ({"job": "from sm_mlops.tabular import tables\n", "pyarrow__": ""}, "pyarrow/__init__.py"),
        ({"job": "import xgboost, numpy\n", "numpy": ""}, r"^model/numpy\.py: hides another"),
        ({"job": "", "sm_mlops": ""}, r"^model/sm_mlops\.py: hides another module sm_mlops"),
        ({"lost": ""}, r"^model/job\.py: no such file$"),
    ],
)  # fmt: skip
def test_what_cannot_work_in_a_job_is_refused_in_one_line(
    model: Path, files: dict[str, str], said: str
) -> None:
    write(model, **files)
    with pytest.raises(DataError, match=said) as refused:
        packaging.collect(model, ["job.py"])
    assert "\n" not in str(refused.value)


def test_a_script_may_not_have_the_name_of_a_python_module(model: Path) -> None:
    write(model, statistics="")
    with pytest.raises(DataError, match=r"^model/statistics\.py: hides another module"):
        packaging.collect(model, ["statistics.py"])


@pytest.mark.parametrize(
    "line", ["from . import one", "import helpers.lost", "from sm_mlops import settings"]
)
def test_an_import_that_may_fail_is_not_refused(model: Path, line: str) -> None:
    text = f"try:\n    {line}\nexcept ImportError:\n    import two\n"
    write(model, job=text, one="", two="", helpers__="")
    assert "two.py" in team(model)


def test_only_the_script_that_a_job_starts_needs_what_its_main_imports(model: Path) -> None:
    main = "if __name__ == '__main__':\n    import helper\n"
    write(model, job=f"import other\n{main}", other=main, helper="")
    assert list(packaging.collect(model, ["job.py"])) == ["job.py", "other.py"]
    started = packaging.collect(model, ["job.py"], started="job.py")
    assert list(started) == ["helper.py", "job.py", "other.py"]
