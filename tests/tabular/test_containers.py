"""The code of each step and the packed model, under the conditions of the managed containers."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

import datasets
import sm_mlops.tabular
from container_case import (
    CHANNELS,
    CURED,
    NO_INDEX,
    NOBODY,
    Container,
    Served,
    bundles,
    container,
    files_below,
    package_index,
    prefix,
    succeeded,
)
from image_packages import CONTAINER, MODULES, TOOLKIT
from model_case import MODEL
from repos import make_repo
from sm_mlops.bundle import Bundle
from sm_mlops.training.definition import Compiled, compile_pipeline

pytestmark = pytest.mark.slow

HYPERPARAMETERS = {
    "num_boost_round": "25",
    "early_stopping_rounds": "0",
    "eta": "0.2",
    "max_depth": "4",
    "lambda": "1",
    "tree_method": "hist",
}
PACKED = [
    *("baseline.json", "encoding.json", "model.ubj", "schema.json"),
    *("training.json", "versions.json"),
]

Files = Mapping[str, bytes | Path]
Code = Mapping[str, Bundle]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    repo = make_repo(tmp_path_factory.mktemp("containers") / "repo")
    settings = repo.configure(data={"target": "Churn", "positive": "Yes", "drop": []})
    return compile_pipeline(settings, "1" * 12)


@pytest.fixture(scope="module")
def sources(compiled: Compiled) -> Code:
    return bundles(compiled)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    columns = datasets.churn(rows=600)
    return pa.table({name: [_text(v) for v in values] for name, values in columns.items()})


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def as_csv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(table, sink)
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def parts(table: pa.Table, write: Callable[[pa.Table], bytes], end: str) -> dict[str, bytes]:
    """Return three files as a job of many workers leaves them, with its marker beside them."""
    third = table.num_rows // 3 + 1
    files = {
        f"day={i % 2}/part-{i:05}{end}": write(table.slice(i * third, third)) for i in range(3)
    }
    return {"_SUCCESS": b"", **files}


def prepare(sources: Code, data: Files) -> dict[str, dict[str, bytes]]:
    """Run Preprocess in a container and return its outputs, folder by folder."""
    with container() as c:
        c.bring("processing/input/data", data)
        out = c.base / "processing/output"
        c.process(
            sources["preprocess.py"], ["--data", c.base / "processing/input/data", "--output", out]
        )
        names = (*CHANNELS, "test")
        return {
            name: {f: (out / name / f).read_bytes() for f in files_below(out / name)}
            for name in names
        }


@pytest.fixture(scope="module")
def prepared(sources: Code, table: pa.Table) -> dict[str, dict[str, bytes]]:
    return prepare(sources, {"data.csv": as_csv(table)})


@pytest.fixture(scope="module")
def channels(prepared: dict[str, dict[str, bytes]]) -> dict[str, dict[str, bytes]]:
    return {name: prepared[name] for name in CHANNELS}


def train(
    c: Container, sources: Code, channels: Mapping[str, Files], **changes: str
) -> subprocess.Popen[str]:
    return c.train(sources["train.py"], channels, {**HYPERPARAMETERS, **changes})


@pytest.fixture(scope="module")
def trained(sources: Code, channels: dict[str, dict[str, bytes]]) -> Iterator[Path]:
    """Return the model folder that the image's `train` leaves, without a package index."""
    with container() as c:
        succeeded(c.train(sources["train.py"], channels, HYPERPARAMETERS, CURED))
        yield c.base / "model"


def test_processes_of_a_container_run_as_nobody_if_the_tests_run_as_root() -> None:
    with container() as c:
        said = succeeded(c.start(["python", "-c", "import os; print(os.getuid())"]))
    assert int(said) == (NOBODY if prefix() else os.getuid())


# What a step's code may import.


def foreign_imports(bundle: Bundle) -> set[str]:
    """Return the modules that a bundle imports anywhere and that are neither in it nor in the
    image."""
    own = {name.removesuffix(".py").replace("/", ".") for name, _ in bundle.files}
    own |= {name.removesuffix(".__init__") for name in own}
    image = {MODULES.get(package, package) for package in CONTAINER}
    found = set()
    for name, content in bundle.files:
        if name.endswith(".py"):
            known = sys.stdlib_module_names | image | TOOLKIT.get(Path(name).name, set())
            for node in ast.walk(ast.parse(content)):
                modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    modules = [node.module or "."]
                found |= {m for m in modules if m not in own and m.partition(".")[0] not in known}
    return found


def with_line(bundle: Bundle, line: str) -> Bundle:
    """Return the bundle with a script that does something else first."""
    files = dict(bundle.files)
    head = b'if __name__ == "__main__":\n'
    files[bundle.script] = files[bundle.script].replace(head, head + f"    {line}\n".encode())
    assert files[bundle.script] != dict(bundle.files)[bundle.script]
    return dataclasses.replace(bundle, files=tuple(sorted(files.items())))


@pytest.mark.parametrize("script", ["preprocess.py", "train.py", "evaluate.py"])
def test_a_bundle_imports_nothing_but_itself_and_the_image(sources: Code, script: str) -> None:
    bundle = sources[script]
    assert foreign_imports(bundle) == set()
    for line, module in (
        ("import botocore.session", "botocore.session"),
        ("from rich import box", "rich"),
    ):
        assert foreign_imports(with_line(bundle, line)) == {module}
    for name in set(dict(bundle.files)) - {bundle.script, "mlops.yaml"}:
        less = [(n, text) for n, text in bundle.files if n != name]
        if foreign_imports(dataclasses.replace(bundle, files=tuple(less))):
            break
    else:
        pytest.fail("a module that is missing in the bundle would not be noticed")


REFUSED = {
    "a package": ("import importlib; importlib.import_module('rich')", "No module named 'rich'"),
    "the tool": ("__import__('sm_mlops.settings')", "No module named 'sm_mlops.settings'"),
    "more of the library": (
        "__import__('sm_mlops.tabular.report')",
        "No module named 'sm_mlops.tabular.report'",
    ),
    "the network": ("import socket; socket.create_connection(('192.0.2.1', 80))", "this machine o"),
    "a name": ("import socket; socket.getaddrinfo('example.com', 80)", "this machine only"),
    "its input": (
        "import os; open(os.environ['SM_CHANNEL_TRAIN'] + '/more.parquet', 'w')",
        "Permission denied|Read-only",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_container_does_not_have_fails_the_job(
    sources: Code, channels: dict[str, dict[str, bytes]], what: str
) -> None:
    line, said = REFUSED[what]
    if what == "its input" and os.geteuid() == 0 and not prefix():
        pytest.skip("root may write everywhere, and setpriv is not here to make it nobody")
    with container() as c:
        process = c.train(with_line(sources["train.py"], line), channels, HYPERPARAMETERS)
        output, _ = process.communicate()
        assert process.returncode != 0
        assert re.search(said, output), output
        assert files_below(c.base / "model") == []
        assert (c.base / "output/failure").read_text()


def test_without_the_library_in_its_bundle_a_job_has_nothing_of_the_tool() -> None:
    script = "import importlib.util\nprint(importlib.util.find_spec('sm_mlops'))\n"
    with container() as c:
        said = c.process(Bundle("job.py", (("job.py", script.encode()),)), [])
    assert said == "None\n"


def test_opt_ml_is_used_only_where_no_other_folder_is_named() -> None:
    """Elsewhere the sandbox's folder would not be found, and this file would prove nothing."""
    library = Path(sm_mlops.tabular.__file__).parent
    hard, defaults = 0, 0
    for script in (*MODEL.glob("*.py"), *library.glob("*.py")):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
                words = [ast.unparse(value) for value in node.values]
                defaults += words == ["os.environ.get('SAGEMAKER_BASE_DIR')", "'/opt/ml'"]
            if isinstance(node, ast.Constant) and str(node.value).startswith("/opt/ml"):
                hard += 1
    assert hard == defaults > 0


# Processing.


@pytest.mark.parametrize(("write", "end"), [(as_csv, ".csv"), (as_parquet, ".parquet")])
def test_a_channel_of_several_parts_is_prepared_as_one_table(
    sources: Code,
    table: pa.Table,
    prepared: dict[str, dict[str, bytes]],
    write: Callable[[pa.Table], bytes],
    end: str,
) -> None:
    found = prepare(sources, parts(table, write, end))
    schemas = [json.loads(p["preprocessor"]["schema.json"]) for p in (found, prepared)]
    assert [s["data"].pop("files") for s in schemas] == [3, 1]
    assert schemas[0]["data"].pop("sha256") != schemas[1]["data"].pop("sha256")
    assert schemas[0]["columns"] == schemas[1]["columns"]
    assert schemas[0]["data"]["rows"] == schemas[1]["data"]["rows"]


def test_evaluation_judges_the_packed_model(
    sources: Code, prepared: dict[str, dict[str, bytes]], trained: Path
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in sorted(trained.iterdir()):
            tar.add(path, path.name)
    with container() as c:
        given = c.base / "processing/input"
        c.bring("processing/input/model", {"model.tar.gz": archive.getvalue()})
        c.bring("processing/input/test", prepared["test"])
        c.bring("processing/input/champion", {"none.json": b"{}"})
        out = c.base / "processing/output"
        folders = [w for n in ("model", "test", "champion") for w in (f"--{n}", given / n)]
        said = c.process(sources["evaluate.py"], [*folders, "--output", out])
        assert re.search(r"auc 0\.\d+ on 90 test rows", said)
        assert {"evaluation.json", "gate.json", "report.html"} <= set(files_below(out))


# Training.


def test_training_without_pip_leaves_the_same_model_from_channels_of_several_files(
    sources: Code, channels: dict[str, dict[str, bytes]], trained: Path
) -> None:
    [rows] = channels["train"].values()
    whole = pq.read_table(io.BytesIO(rows))
    several = {
        f"part-{i}.parquet": as_parquet(whole.slice(start, 150))
        for i, start in enumerate(range(0, whole.num_rows, 150))
    }
    assert len(several) == 3
    with container() as c:
        succeeded(train(c, sources, {**channels, "train": several}))
        found = {name: (c.base / "model" / name).read_bytes() for name in PACKED[:4]}
        names = files_below(c.base / "model")
        assert not (c.base / "output/failure").exists()
    assert found == {name: (trained / name).read_bytes() for name in PACKED[:4]}
    assert [name for name in names if "/" not in name] == PACKED
    assert names == files_below(trained)
    packed = {name.removeprefix("code/") for name in names if "/" in name}
    assert "inference.py" in packed
    assert packed < set(dict(sources["train.py"].files))


def test_hyperparameters_arrive_as_text_and_are_numbers_again(trained: Path) -> None:
    notes = json.loads((trained / "training.json").read_text())["parameters"]
    typed = {"num_boost_round": 25, "eta": 0.2, "max_depth": 4, "lambda": 1.0}
    assert {name: notes[name] for name in typed} == typed
    assert type(notes["max_depth"]) is int
    assert notes["tree_method"] == "hist"


LONG = {
    **{"num_boost_round": "800", "eta": "0.001", "checkpoint_rounds": "10"},
    **{"subsample": "1", "colsample_bytree": "1"},  # so that nothing is drawn
}


@pytest.fixture(scope="module")
def uninterrupted(sources: Code, channels: dict[str, dict[str, bytes]]) -> list[float]:
    """Return the validation metric of every round."""
    with container() as c:
        succeeded(train(c, sources, channels, **LONG))
        return curve(c)


def curve(c: Container) -> list[float]:
    notes: dict[str, Any] = json.loads((c.base / "model/training.json").read_text())
    return list(notes["curve"]["validation"])


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGTERM, id="asked"),
        pytest.param(signal.SIGKILL, id="killed", marks=pytest.mark.long),
    ],
)
def test_a_spot_interruption_resumes_from_its_checkpoint(
    sources: Code,
    channels: dict[str, dict[str, bytes]],
    uninterrupted: list[float],
    how: signal.Signals,
) -> None:
    """Docker signals a container's first process, which is a toolkit that does not pass it on: the
    script is either asked as well, or killed with all the rest two minutes later."""
    with container() as c, container() as next_one:
        process = train(c, sources, channels, **LONG)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("[100]"):
                os.killpg(process.pid, how)
                break
        rest = process.stdout.read()
        assert process.wait() != 0
        assert files_below(c.base / "model") == []
        [saved] = (c.base / "checkpoints").glob("*/model.ubj")
        if how == signal.SIGTERM:
            asked = re.search(r"terminated after (\d+) rounds", rest)
            assert asked, rest
        # SageMaker keeps the folder in S3 and brings it to the instance that takes over.
        next_one.allow("checkpoints", f"checkpoints/{saved.parent.name}")
        (next_one.base / saved.relative_to(c.base)).write_bytes(saved.read_bytes())
        said = succeeded(train(next_one, sources, channels, **LONG))
        resumed = re.search(r"resumed after (\d+) rounds", said)
        assert resumed
        assert 100 <= int(resumed[1]) < 800
        if how == signal.SIGTERM:
            assert resumed[1] == asked[1]  # type: ignore[index]
        assert curve(next_one) == pytest.approx(uninterrupted, rel=1e-6)


# Installing the code.


@pytest.fixture(scope="module")
def environments(compiled: Compiled) -> dict[str, dict[str, str]]:
    """Return the environments that the pipeline gives its training job and the model, by step."""
    steps = json.loads(compiled.definition)["Steps"]
    steps += [s for step in steps for s in step["Arguments"].get("IfSteps", ())]
    found = {step["Type"]: step["Arguments"] for step in steps}
    [model] = found["RegisterModel"]["InferenceSpecification"]["Containers"]
    return {"train": found["Training"]["Environment"], "serve": model["Environment"]}


REPORT = """
import json, os, sys
from pathlib import Path
import beside
if __name__ == "__main__":
    seen = {name: text for name, text in os.environ.items() if name.startswith("SM_")}
    seen |= {"arguments": sys.argv[1:], "folder": os.getcwd(), "beside": beside.__file__}
    seen["code"] = sorted(path.name for path in Path().iterdir() if path.suffix == ".py")
    print("SEEN", json.dumps(seen).replace(os.environ["SAGEMAKER_BASE_DIR"], "/opt/ml"))
"""
REPORTING = Bundle("report.py", (("beside.py", b""), ("report.py", REPORT.encode())))


def seen(c: Container, environment: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what a script of training finds."""
    said = succeeded(c.train(REPORTING, {"train": {"a": b""}}, {"eta": "0.2"}, environment))
    [line] = [line for line in said.splitlines() if line.startswith("SEEN")]
    found: dict[str, Any] = json.loads(line.removeprefix("SEEN"))
    return found


def test_a_script_finds_the_same_with_pip_and_without() -> None:
    with container() as installed, container() as quick:
        assert (found := seen(installed, CURED)) == seen(quick, None)
    assert found["arguments"] == ["--eta", "0.2"]
    assert found["beside"] == "/opt/ml/code/beside.py"


@pytest.mark.long
def test_pip_fetches_setuptools_from_an_index_unless_told_otherwise(
    environments: dict[str, dict[str, str]],
) -> None:
    with package_index() as index, container(index) as c:
        assert seen(c, {})["folder"] == "/opt/ml/code"
    with container() as c:
        process = c.train(REPORTING, {}, {}, {})
        said, _ = process.communicate()
        assert "No matching distribution found for setuptools>=40.8.0" in said
        assert (c.base / "output/failure").read_text().startswith("InstallModuleError:")
    with container() as c:
        assert seen(c, environments["train"])["folder"] == "/opt/ml/code"


# Hosting.


ECHO = """
import json, os
from sagemaker_containers._env import ServingEnv
def model_fn(model_dir):
    return "NAME"
def transform_fn(model, body, content_type, accept):
    writable = os.access(os.path.dirname(__file__), os.W_OK)
    found = [model, body, writable, ServingEnv().model_server_timeout]
    return json.dumps(found), "application/json"
"""


@contextmanager
def served(
    folder: Path, name: str, environment: Mapping[str, str], index: str = NO_INDEX
) -> Iterator[Served]:
    """Serve a model that answers with its name."""
    (folder / name / "code").mkdir(parents=True, exist_ok=True)
    (folder / name / "code" / "inference.py").write_text(ECHO.replace("NAME", name))
    with container(index) as c, c.serve(folder / name, environment) as found:
        yield found


@pytest.mark.long
def test_the_models_of_two_repos_are_served_at_once(
    environments: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    environment = environments["serve"]
    with served(tmp_path, "one", environment) as one, served(tmp_path, "two", environment) as two:
        assert [one.wait(), two.wait()] == [200, 200]
        answers = [json.loads(each.ask("rows", "text/csv")[2]) for each in (one, two)]
    assert answers == [["one", "rows", True, 900], ["two", "rows", True, 900]]


@pytest.mark.long
def test_serving_without_an_index_fails_as_on_aws_unless_the_environment_is_the_pipelines(
    environments: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    bare = {n: v for n, v in environments["serve"].items() if not n.startswith("PIP")}
    with served(tmp_path, "one", bare) as found:
        assert found.wait() == 0
        assert found.process.stdout is not None
        assert "No matching distribution found for setuptools" in found.process.stdout.read()
    with package_index() as index, served(tmp_path, "one", bare, index) as found:
        assert found.wait() == 200


def test_the_packed_model_answers_from_a_folder_that_it_cannot_change(
    trained: Path, table: pa.Table, environments: dict[str, dict[str, str]]
) -> None:
    rows = table.drop_columns(["Churn"]).slice(0, 3)
    objects = rows.to_pylist()
    questions = {
        "text/csv": as_csv(rows).decode(),
        "application/json": json.dumps({"instances": objects}),
        "application/jsonlines": "\n".join(map(json.dumps, objects)),
    }
    with container() as c, c.serve(trained, environments["serve"]) as found:
        assert found.wait() == 200
        answers = [found.ask(body, kind) for kind, body in questions.items()]
        if "transform_fn" in (trained / "code" / "inference.py").read_text():
            assert {kind for _, kind, _ in answers} == {"application/json"}
            refused = found.ask(json.dumps({**objects[0], "tenure": "long"}), "application/json")
            assert refused[:2] == (400, "application/json")
            assert "column 'tenure', row 1: 'long'" in refused[2]
    assert [status for status, _, _ in answers] == [200] * 3
    assert len({body for _, _, body in answers}) == 1
    assert len(json.loads(answers[0][2])["predictions"]) == 3
