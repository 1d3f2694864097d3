"""Run the steps of model/ on a table, in this process.

Puts model/ on the path as the jobs do, where its files import each other as top-level modules.
"""

import json
import shutil
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = Path(__file__).resolve().parents[2] / "{{cookiecutter.project_slug}}" / "model"
sys.path.insert(0, str(MODEL))
# Cookiecutter would render it.
writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True

import inference  # noqa: E402
import train as hooks  # noqa: E402

sys.dont_write_bytecode = writes

import datasets  # noqa: E402
from sm_mlops.tabular import boosting, evaluate, metrics, preprocess, tables, train  # noqa: E402
from sm_mlops.tabular import schema as model_schema  # noqa: E402
from sm_mlops.tabular.encoder import Encoding  # noqa: E402
from sm_mlops.tabular.failure import DataError  # noqa: E402
from sm_mlops.tabular.preprocess import Settings  # noqa: E402
from sm_mlops.tabular.rows import StoredRows  # noqa: E402

__all__ = [
    "MODEL", "PASSENGER", "Case", "DataError", "Encoding", "Settings", "boosting", "evaluate",
    "hooks", "inference", "metrics", "model_schema", "passengers", "preprocess", "tables", "train",
]  # fmt: skip
# A row of `passengers`.
PASSENGER: dict[str, Any] = {
    "Pclass": 1, "Name": "Fam1, Mrs. N1", "Sex": "female", "Age": 38.5, "SibSp": 1,
    "Ticket": "PC 17599", "Fare": 71.2833, "Cabin": "C85", "Embarked": "C",
}  # fmt: skip
QUICK = {"num_boost_round": "30", "eta": "0.2"}


@dataclass
class Case:
    """A folder for one data set and what the steps make of it."""

    folder: Path

    def write(self, table: Mapping[str, Sequence[Any]], delimiter: str = ",") -> Path:
        """Write the table as data.csv."""
        return datasets.write_csv(self.folder / "data.csv", table, delimiter)

    def text(self, content: str, name: str = "data.csv") -> Path:
        """Write a file with exactly this content."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
        return path

    def prepare(
        self, data: Path, target: str, features: Any = None, **settings: Any
    ) -> model_schema.Schema:
        """Run preprocess."""
        out = self.folder / "out"
        return preprocess.preprocess(data, out, Settings(target, **settings), features)

    def rows(self, part: str = "train") -> StoredRows:
        """Return the typed rows of a part, train or validation."""
        out = self.folder / "out"
        return StoredRows(model_schema.load(out / "preprocessor"), out / part)

    def encoding(self) -> Encoding:
        """Return the library's encoding of the training rows."""
        return Encoding.fit(self.rows())

    def train(self, **hyperparameters: Any) -> Any:
        """Run train and return the loaded model."""
        out = self.folder / "out"
        folders = {name: out / name for name in ("train", "validation", "preprocessor")}
        folders |= {"model-dir": self.folder / "model", "code": MODEL}
        train.train(folders, train.hyperparameters({**QUICK, **hyperparameters}), hooks)
        return inference.model_fn(str(self.folder / "model"))

    def evaluate(
        self, champion: Path | None = None, waived: bool = False, **settings: Any
    ) -> dict[str, Any]:
        """Run evaluate on the packed model and return the content of gate.json."""
        archive = self.pack()
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        output, test = self.folder / "evaluation", self.folder / "out" / "test"
        given = evaluate.Settings(**settings)
        evaluate.evaluate(archive, test, champion, output, work, given, waived=waived)
        gate: dict[str, Any] = json.loads((output / "gate.json").read_text())
        return gate

    def pack(self, archive: Path | None = None) -> Path:
        """Pack the model folder into model.tar.gz."""
        archive = archive or self.folder / "model.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted((self.folder / "model").iterdir()):
                if path.name != "__pycache__":
                    tar.add(path, path.name)
        return archive


def passengers(folder: Path) -> Case:
    """Return a trained model of who survived."""
    case = Case(folder)
    case.prepare(case.write(datasets.passengers()), "Survived", drop=("PassengerId",))
    case.train()
    return case
