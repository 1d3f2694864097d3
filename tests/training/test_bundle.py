"""Code bundles: what is in them, and when their names change."""

from __future__ import annotations

import io
import tarfile

import pytest

from repos import Repo
from sm_mlops import bundle
from sm_mlops.bundle import Bundle
from sm_mlops.errors import MlopsError

READS = ("data.target", "data.drop", "split")


def names(found: Bundle) -> list[str]:
    return [name for name, _ in found.files]


def test_a_bundle_holds_the_script_its_imports_and_its_settings(repo: Repo) -> None:
    found = bundle.collect(repo.settings(), "preprocess.py", reads=READS)
    own = [name for name in names(found) if not name.startswith("sm_mlops/")]
    assert own == ["mlops.yaml", "preprocess.py"]
    assert {"sm_mlops/__init__.py", "sm_mlops/tabular/tables.py"} < set(names(found))
    assert "sm_mlops/tabular/report.py" not in names(found)


def test_a_script_reads_only_the_keys_it_asks_for(repo: Repo) -> None:
    settings = repo.configure(data={"drop": ["a", "b"]}, split={"seed": 7})
    found = bundle.collect(settings, "preprocess.py", reads=READS)
    assert dict(found.files)["mlops.yaml"].decode() == (
        "data:\n  drop:\n  - a\n  - b\n  target: diagnosis\n"
        "split:\n  by: null\n  seed: 7\n  test: 0.15\n  validation: 0.15\n"
    )
    whole = dict(bundle.collect(settings, "preprocess.py", reads=["data"]).files)["mlops.yaml"]
    assert b"  drop:\n  - a\n  - b\n" in whole and b"  path: " in whole
    assert "mlops.yaml" not in names(bundle.collect(settings, "preprocess.py"))


@pytest.mark.parametrize("key", ["data.goal", "splits", "project", "root", "hyperparameters.x"])
def test_a_key_that_mlops_yaml_does_not_have_is_refused(repo: Repo, key: str) -> None:
    with pytest.raises(MlopsError, match=f"has no key {key}"):
        bundle.collect(repo.settings(), "preprocess.py", reads=[key])


@pytest.mark.slow
def test_its_name_changes_with_its_own_code_and_settings_alone(repo: Repo) -> None:
    def digest(settings: object = None) -> str:
        return bundle.collect(repo.settings(), "preprocess.py", reads=READS).digest

    before = digest()
    repo.configure(data={"path": "elsewhere.csv"}, gate={"threshold": 0.123})
    other = repo.root / "model" / "train.py"
    other.write_text(other.read_text(encoding="utf-8") + "\n# another idea\n", encoding="utf-8")
    assert digest() == before
    repo.configure(split={"seed": 4711})
    changed = digest()
    own = repo.root / "model" / "preprocess.py"
    own.write_text(own.read_text(encoding="utf-8") + "\n# another idea\n", encoding="utf-8")
    assert len({before, changed, digest()}) == 3


def test_line_ends_of_another_system_do_not_count(repo: Repo) -> None:
    before = bundle.collect(repo.settings(), "train.py").digest
    file = repo.root / "model" / "train.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert bundle.collect(repo.settings(), "train.py").digest == before


@pytest.mark.slow
def test_the_archive_is_always_the_same_bytes_and_holds_the_files(repo: Repo) -> None:
    first, second = (
        bundle.collect(repo.settings(), "train.py", also=["inference.py"]) for _ in range(2)
    )
    assert first.tar_gz() == second.tar_gz()
    with tarfile.open(fileobj=io.BytesIO(first.tar_gz())) as archive:
        assert archive.getnames() == names(first)
    assert "inference.py" in names(first)


def test_a_script_that_cannot_be_packed_is_refused_in_one_line(repo: Repo) -> None:
    (repo.root / "model" / "extra.py").write_text("import sm_mlops.settings\n", encoding="utf-8")
    with pytest.raises(MlopsError, match=r"^model/extra\.py, line 1: cannot import"):
        bundle.collect(repo.settings(), "extra.py")
