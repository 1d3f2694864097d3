"""Code bundles: what is in them, and when their names change."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from repos import Repo
from sm_mlops.training import bundle
from sm_mlops.training.pipeline import code


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "shapes").mkdir(parents=True)
    (folder / "preprocess.py").write_text("import json\nimport tables\nfrom shapes import square\n")
    (folder / "tables.py").write_text("import units\n")
    (folder / "units.py").write_text("import tables\n")
    (folder / "shapes" / "__init__.py").write_text("")
    (folder / "shapes" / "square.py").write_text("SIDES = 4\n")
    (folder / "train.py").write_text("import units\n")
    (folder / "inference.py").write_text("import json\n")
    return folder


def names(found: bundle.Bundle) -> list[str]:
    return [name for name, _ in found.files]


def test_a_bundle_holds_the_script_and_all_that_it_imports_and_nothing_else(model: Path) -> None:
    assert names(bundle.collect(model, "preprocess.py")) == [
        "preprocess.py",
        "shapes/__init__.py",
        "shapes/square.py",
        "tables.py",
        "units.py",
    ]


def test_a_script_that_travels_along_is_in_the_bundle(model: Path) -> None:
    assert names(bundle.collect(model, "train.py", also=["inference.py"])) == [
        "inference.py",
        "tables.py",
        "train.py",
        "units.py",
    ]


def test_the_name_changes_with_an_imported_module_and_not_with_others(model: Path) -> None:
    before = bundle.collect(model, "preprocess.py").digest
    (model / "train.py").write_text("import units\nprint()\n")
    assert bundle.collect(model, "preprocess.py").digest == before
    (model / "units.py").write_text("KILO = 1000\n")
    assert bundle.collect(model, "preprocess.py").digest != before


def test_the_name_changes_with_the_settings(model: Path) -> None:
    digests = {
        bundle.collect(model, "train.py", settings=settings).digest
        for settings in (None, {}, {"split": {"seed": 1}}, {"split": {"seed": 2}})
    }
    assert len(digests) == 4


def test_line_ends_of_another_system_do_not_count(model: Path) -> None:
    before = bundle.collect(model, "train.py").digest
    file = model / "train.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert bundle.collect(model, "train.py").digest == before


def test_the_archive_is_the_same_bytes_each_time_and_holds_the_files(model: Path) -> None:
    found = bundle.collect(model, "train.py")
    assert found.tar_gz() == bundle.collect(model, "train.py").tar_gz()
    with tarfile.open(fileobj=io.BytesIO(found.tar_gz())) as archive:
        assert archive.getnames() == names(found)


def test_a_missing_script_is_named(model: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"serve\.py"):
        bundle.collect(model, "serve.py")


@pytest.mark.slow
def test_editing_train_leaves_the_code_of_preprocess_and_evaluate_as_it_is(repo: Repo) -> None:
    before = code(repo.settings())
    file = repo.root / "model" / "train.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# another idea\n", encoding="utf-8")
    after = code(repo.settings())
    assert after.train.digest != before.train.digest
    assert after.preprocess.digest == before.preprocess.digest
    assert after.evaluate.digest == before.evaluate.digest


def test_moving_the_data_or_the_gate_leaves_all_code_as_it_is(repo: Repo) -> None:
    before = code(repo.settings())
    after = code(repo.configure(data={"path": "elsewhere.csv"}, gate={"threshold": 0.123}))
    assert before == after


def test_another_split_changes_the_code_of_preprocess_alone(repo: Repo) -> None:
    before = code(repo.settings())
    after = code(repo.configure(split={"seed": 4711}))
    assert after.preprocess.digest != before.preprocess.digest
    assert (after.train, after.evaluate) == (before.train, before.evaluate)
