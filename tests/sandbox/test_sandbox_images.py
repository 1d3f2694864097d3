"""The environments that stand for images, and what jobs and endpoints may do in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container_case import CURED, SKLEARN, require_sklearn
from endpoint_cases import MODEL, SCRIPT_MODE, Hosting, hosting, tarred, variant
from sandbox_cases import IMAGE, REGION, channel, register
from sm_mlops.sandbox import Server, images
from wheels import make_wheel

UNKNOWN = IMAGE.replace("xgboost:3.2-0", "xgboost:1.7-1")


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    with Server(tmp_path_factory.mktemp("some images"), REGION, pace=0.01) as server:
        yield hosting(server)


# Making an environment.


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """A folder with the lock of an image that has one small package."""
    text = (images.HERE / "xgboost-3.2-0.lock").read_text()
    lines = text[text.index("six==") :].splitlines()
    hashes = [line for line in lines[1:3] if "--hash" in line]
    folder = tmp_path / "locks"
    folder.mkdir()
    (folder / "tiny-1.lock").write_text("\n".join([lines[0], *hashes]).rstrip("\\ ") + "\n")
    return folder


def test_the_image_has_its_packages_and_its_own_python() -> None:
    image = images.find(IMAGE)
    script = "import sys, importlib.metadata as m; print(*sys.version_info[:2]); "
    script += "print(m.version('xgboost'), m.version('sagemaker-containers'))"
    said = subprocess.run([image / "bin/python", "-c", script], capture_output=True, text=True)
    version, packages = said.stdout.splitlines()
    assert packages == "3.2.0 2.8.6.post2"
    if images.interpreter() is None:
        pytest.skip(
            "Python 3.12 is not installed: CI has it, and it is said when the image is made"
        )
    assert version == "3 12"


@pytest.mark.slow
def test_an_environment_is_made_once_by_several_processes_at_a_time(
    locks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: images.make(locks / "tiny-1.lock", folder, "six"), range(3)))
    assert capfd.readouterr().err.count("Making the image tiny-1") == 1
    assert (images.site_packages(folder / "tiny-1") / "__pycache__").is_dir()
    (locks / "tiny-1.lock").write_text((locks / "tiny-1.lock").read_text() + "\n")
    images.make(locks / "tiny-1.lock", folder, "six")
    assert capfd.readouterr().err.count("Making the image tiny-1") == 1


@pytest.mark.slow
def test_an_interrupted_making_leaves_nothing_half(locks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    with pytest.raises(images.ImageError, match=r"cannot make the image tiny-1: .*No module named"):
        images.make(locks / "tiny-1.lock", folder, "nowhere")
    assert not (folder / "tiny-1").exists()
    images.make(locks / "tiny-1.lock", folder, "six")
    assert (folder / "tiny-1" / "ready").is_file()


@pytest.mark.slow
def test_a_missing_python_is_said(
    locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "PYTHON", (3, 99))
    images.make(locks / "tiny-1.lock", tmp_path / "images", "six")
    assert "Python 3.99 is not installed, so it gets this one's" in capfd.readouterr().err
    folder = images.site_packages(tmp_path / "images" / "tiny-1").parent.name
    assert folder == f"python{sys.version_info[0]}.{sys.version_info[1]}"


def test_an_image_that_is_not_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(images.ImageError, match=f"{IMAGE} is not made; run: make setup"):
        images.find(IMAGE, tmp_path)


def test_another_image_is_made_when_it_is_asked_for_and_only_with_its_own_python(
    locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_make", lambda made, *_: made.mkdir())
    images.make(folder=tmp_path / "images")
    assert [path.name for path in tmp_path.glob("images/*-*")] == ["xgboost-3.2-0"]
    monkeypatch.undo()
    monkeypatch.setattr(images, "PYTHON", (3, 99))
    own = images.name_of("123456789012.dkr.ecr.us-east-1.amazonaws.com/team/forest:1.0")
    for lock, name in ((images.HERE / "sklearn-1.9-0.lock", None), (locks / "tiny-1.lock", own)):
        with pytest.raises(images.ImageError, match=r"install Python 3\.99 first"):
            images.make(lock, tmp_path / "images", "six", name)


@pytest.mark.slow
def test_an_image_of_a_team_s_has_an_environment_of_its_own(locks: Path, tmp_path: Path) -> None:
    if images.interpreter() is None:
        pytest.skip("Python 3.12 is not installed: CI has it")
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/forest:1.0"
    packages = tmp_path / "environment.txt"
    packages.write_text((locks / "tiny-1.lock").read_text().splitlines()[0].rstrip(" \\") + "\n")
    images.make(packages, tmp_path / "images", "six", images.name_of(uri))
    assert (images.site_packages(images.find(uri, tmp_path / "images")) / "six.py").is_file()
    with pytest.raises(images.ImageError, match=r"forest:1\.1; it has: .* once mlops\.yaml names"):
        images.find(uri.replace("1.0", "1.1"), tmp_path / "images")


# Using it.


@pytest.mark.parametrize("uri", [UNKNOWN, "docker.io/own:1", f"{IMAGE}@sha256:{'0' * 64}"])
@pytest.mark.parametrize("kind", ["processing", "training", "model"])
@pytest.mark.slow
def test_an_image_without_an_environment_is_refused_by_name(
    aws: Hosting, kind: str, uri: str
) -> None:
    if kind == "model":
        request = register(aws.archive(), ModelApprovalStatus="Approved")
        request["InferenceSpecification"]["Containers"][0]["Image"] = uri
        package = aws.sagemaker.create_model_package(**request)["ModelPackageArn"]
    job: Any = aws.processing("") if kind == "processing" else aws.training("")
    with pytest.raises(ClientError, match=f"no environment for the image {uri}; it has: xgboost"):
        if kind == "model":
            aws.model(package)
        elif kind == "processing":
            job["AppSpecification"]["ImageUri"] = uri
            aws.process(job)
        else:
            job["AlgorithmSpecification"]["TrainingImage"] = uri
            aws.train(job)


CHANGES = """
import os, shutil, sys
from pathlib import Path
import numpy
site = Path(numpy.__file__).parent
for change in (
    lambda: (site / "new.py").write_text(""),
    lambda: (site / "__init__.py").open("r+"),
    lambda: (site / "new").mkdir(),
    lambda: (site / "__init__.py").unlink(),
    lambda: (site / "__init__.py").rename(site / "other.py"),
    lambda: os.open(site / "__init__.py", os.O_RDWR),
):
    try:
        change()
    except OSError as error:
        assert error.strerror == "Read-only file system", error
    else:
        sys.exit("it could be changed")
own = next(Path(p) for p in sys.path if p.endswith("site-packages"))
(own / "mine.py").write_text("")
import mine
"""


@pytest.mark.slow
def test_a_job_changes_nothing_in_its_image_but_has_packages_of_its_own(aws: Hosting) -> None:
    image = images.site_packages(images.find(IMAGE)) / "numpy"
    before = sorted(image.iterdir())
    assert aws.process(aws.processing(CHANGES))["ProcessingJobStatus"] == "Completed"
    assert sorted(image.iterdir()) == before


@pytest.mark.slow
def test_an_endpoint_reads_its_model_and_writes_beside_its_code(aws: Hosting) -> None:
    script = """
import json
from pathlib import Path
def model_fn(model_dir):
    return model_dir
def transform_fn(model, body, content_type, accept):
    said = []
    for folder in (Path(model), Path(model, "code"), Path(__file__).parent):
        try:
            (folder / "new").write_text("x")
            said.append("written")
        except OSError as error:
            said.append(error.strerror)
    return json.dumps([*said, Path(__file__).parent.name, Path(__file__).parents[1].name]), accept
"""
    found: Any = aws.ask(aws.deploy(aws.named("writes", script)))
    assert found == [*["Read-only file system"] * 2, "written", "code", "ml"]


@pytest.mark.slow
def test_a_version_is_served_in_its_own_image(aws: Hosting) -> None:
    require_sklearn()
    script = """
import sklearn
def model_fn(model_dir):
    return sklearn.__version__
def transform_fn(model, body, content_type, accept):
    return model, "text/plain"
"""
    request = register(aws.archive(script), ModelApprovalStatus="Approved")
    [container] = request["InferenceSpecification"]["Containers"]
    container |= {"Image": SKLEARN, "Environment": SCRIPT_MODE}
    package = aws.sagemaker.create_model_package(**request)["ModelPackageArn"]
    name = aws.deploy(aws.config(variant(aws.model(package))))
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body="x")
    assert answer["Body"].read() == b"1.9.0"


@pytest.mark.long
@pytest.mark.slow
def test_pip_installs_what_a_job_and_a_model_require_into_their_own_environment(
    aws: Hosting, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "forest", "1.0")
    files: dict[str, Any] = {
        "requirements.txt": "--no-index\n--find-links wheels\nforest\n",
        f"wheels/{wheel.name}": wheel.read_bytes(),
    }
    says = "import forest\nprint('SEEN', forest.VERSION)\n"
    source = aws.put("source/requires/source.tar.gz", tarred({"train.py": says, **files}))
    job = aws.training("", Environment=CURED)
    job["InputDataConfig"] = [channel("code", source)]
    assert aws.train(job)["TrainingJobStatus"] == "Completed"
    script = """
import forest
def model_fn(model_dir):
    return forest.VERSION
def transform_fn(model, body, content_type, accept):
    return model, "text/plain"
"""
    url = aws.archive(script, **{f"code/{name}": content for name, content in files.items()})
    name = aws.deploy(aws.config(variant(aws.model(aws.package_of(url, CURED)))))
    answer = aws.runtime.invoke_endpoint(EndpointName=name, Body="x")
    assert answer["Body"].read() == b"1.0"
    assert not list(images.site_packages(images.find(IMAGE)).glob("forest*"))
    require_sklearn()
    job["AlgorithmSpecification"]["TrainingImage"] = SKLEARN
    assert aws.train(job)["TrainingJobStatus"] == "Completed"


# The true rules of the image's worker.


def answers(aws: Hosting, hooks: str, **more: str) -> tuple[int, str, str]:
    """Return status, content type and body of a model with these hooks instead of MODEL's."""
    name = aws.deploy(aws.named("rules", MODEL + hooks))
    try:
        answer = aws.runtime.invoke_endpoint(EndpointName=name, Body="x", **more)
    except ClientError as error:
        response: Any = error.response
        return response["OriginalStatusCode"], "", response["OriginalMessage"]
    return 200, answer["ContentType"], answer["Body"].read().decode()


@pytest.mark.slow
def test_text_alone_is_html_and_text_with_its_type_is_not(aws: Hosting) -> None:
    bare = "\ndef output_fn(prediction, accept):\n    return 'text'\n"
    assert answers(aws, bare, Accept="text/csv") == (200, "text/html; charset=utf-8", "text")
    typed = bare.replace("'text'", "'text', accept")
    assert answers(aws, typed, Accept="text/csv") == (200, "text/csv; charset=utf-8", "text")
    # Without a header, and for any type, the image's default.
    seen = bare.replace("'text'", "accept, 'text/plain'")
    assert answers(aws, seen, Accept="*/*")[2] == "application/json"


@pytest.mark.slow
@pytest.mark.parametrize("hook", ["input_fn", "predict_fn", "output_fn"])
def test_an_error_with_a_status_is_still_a_page_with_status_500(aws: Hosting, hook: str) -> None:
    raising = f"""
class Refusal(ValueError):
    status_code = 400
def {hook}(*arguments):
    raise Refusal("column 'a', row 1")
"""
    status, _, body = answers(aws, raising)
    assert (status, "column" in body) == (500, False)
    assert "<h1>Internal Server Error</h1>" in body


@pytest.mark.slow
def test_two_ways_to_answer_in_one_script_are_refused(aws: Hosting) -> None:
    both = MODEL + "\ndef transform_fn(model, body, content_type, accept):\n    return body\n"
    name = aws.deploy(aws.named("both", both), expect="Failed")
    assert any("Cannot use transform_fn implementation with" in line for line in aws.log(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "said"),
    [({"SAGEMAKER_PROGRAM": "other.py"}, "No module named 'other'")],
)
def test_a_model_whose_script_is_not_there_says_so(
    aws: Hosting, variables: dict[str, str], said: str
) -> None:
    package = aws.package_of(aws.archive(), variables)
    name = aws.deploy(aws.config(variant(aws.model(package))), expect="Failed")
    assert any(said in line for line in aws.log(name))


@pytest.mark.slow
def test_a_script_of_another_kind_of_model_is_not_served_by_guess(aws: Hosting) -> None:
    script = "def model_fn(model_dir):\n    return None\n"
    name = aws.deploy(aws.named("few", script), expect="Failed")
    said = "inference has no input_fn, and the sandbox has none of the image's own"
    assert any(said in line for line in aws.log(name))


def test_no_lock_names_a_package_host() -> None:
    for lock in images.HERE.glob("*.lock"):
        assert "://" not in lock.read_text()
