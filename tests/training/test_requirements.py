"""model/requirements.txt: what is refused before anything starts, and what travels to the jobs."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from repos import Repo
from sm_mlops import images, requirements
from sm_mlops.errors import MlopsError
from sm_mlops.settings import SANDBOX_ACCOUNT
from sm_mlops.training.definition import compile_pipeline
from wheels import make_wheel

IMAGE = images.find(images.DEFAULT)
ACCOUNT = "1" * 12


def write(root: Path, text: str) -> None:
    (root / "model").mkdir(exist_ok=True)
    (root / "model" / "requirements.txt").write_text(text, encoding="utf-8")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where pip finds its wheels, and the only one."""
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    make_wheel(folder, "forest", "1.2")
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n\nlightgbm=4\n", r"^model/requirements\.txt, line 3: Expected .*lightgbm==4\.6\.0$"),
        ("numpy>=2.2", r"line 1: numpy>=2\.2 contradicts numpy 2\.1\.0, which the image xgboost-3"),
        ("Scikit_Learn<1", "Scikit_Learn<1 contradicts Scikit_Learn 1.8.0"),
        ("xgboost!=3.2.0", r"write xgboost==3\.2\.0$"),
        ("--index-url=https://u:hunter2@127.0.0.1/simple", "the option --index-url is not allowed"),
        ('foo; os_name ~= "x"', "line 1: Undefined .*lightgbm"),
        ('numpy; "x" == "x"', "line 1: .*lightgbm"),
        ("-r more.txt", "the option -r is not allowed"),
        ("-e .", "the option -e is not allowed"),
        ("a==1 --hash=sha256:00", "the option --hash is not allowed"),
        ("--find-links=https://u:hunter2@host", "the option --find-links is not allowed"),
        ("a @ https://u:hunter2@host/a.whl", r"an address or a path .*model/wheels/$"),
        ("git+https://u:hunter2@host/a", "an address or a path is not allowed"),
        ("./mine", "an address or a path is not allowed"),
        ("mine-1-py3-none-any.whl", "an address or a path is not allowed"),
    ],
)
def test_a_line_that_cannot_work_or_may_hold_a_secret_is_refused_by_its_number(
    tmp_path: Path, text: str, said: str
) -> None:
    write(tmp_path, text)
    with pytest.raises(MlopsError, match=said) as refused:
        requirements.files(tmp_path, IMAGE)
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_fits_the_image_is_installed_under_its_pins(tmp_path: Path) -> None:
    write(
        tmp_path,
        "# comment\nlightgbm==4.6.0  # trees\nnumpy>=2\n"
        "numpy>9 ; sys_platform == 'win32'\nlightning[extra]~=2.0\n\n",
    )
    found = requirements.files(tmp_path, IMAGE)
    assert found["requirements.txt"].decode().splitlines() == [
        "--constraint constraints.txt",
        "lightgbm==4.6.0",
        "numpy>=2",
        'numpy>9; sys_platform == "win32"',
        "lightning[extra]~=2.0",
    ]
    assert {"numpy==2.1.0", "xgboost==3.2.0"} < set(found["constraints.txt"].decode().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, "", "# nothing yet\n"])
def test_without_a_requirement_nothing_travels(repo: Repo, text: str | None) -> None:
    if text is not None:
        write(repo.root, text)
    assert not requirements.files(repo.root, IMAGE)
    objects = compile_pipeline(repo.settings(), ACCOUNT).objects
    assert not [key for key in objects if key.endswith("requirements.txt")]


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "model" / "requirements.txt").write_bytes(b"a\xff")
    with pytest.raises(MlopsError, match=r"requirements\.txt: not UTF-8 text \(byte 1\)"):
        requirements.files(tmp_path, IMAGE)


@pytest.mark.slow
def test_wheels_are_packed_with_what_they_require_but_not_what_the_image_has(
    tmp_path: Path, index: Path
) -> None:
    make_wheel(index, "grove", "2", requires="forest>=1")
    make_wheel(index, "numpy", "2.1.0")
    make_wheel(index, "meadow", "1", requires="numpy", tag="cp312-cp312-manylinux_2_28_x86_64")
    write(tmp_path, "grove\nmeadow\n")
    found = requirements.files(tmp_path, IMAGE, pack=True)
    assert sorted(name for name in found if name.startswith("wheels/")) == [
        "wheels/forest-1.2-py3-none-any.whl",
        "wheels/grove-2-py3-none-any.whl",
        "wheels/meadow-1-cp312-cp312-manylinux_2_28_x86_64.whl",
    ]
    assert found["requirements.txt"].decode().splitlines()[1:3] == [
        "--no-index",
        "--find-links wheels",
    ]
    # The same again, even if there is something newer by now.
    make_wheel(index, "forest", "1.3")
    assert requirements.files(tmp_path, IMAGE, pack=True) == found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tag", "said"),
    [("forest==9", "", "No matching distribution found for forest==9$"),
     ("desert", "cp312-cp312-win_amd64", "No matching distribution found for desert$")],
)  # fmt: skip
def test_a_wheel_that_cannot_be_packed_is_named(
    tmp_path: Path, index: Path, name: str, tag: str, said: str
) -> None:
    if tag:
        make_wheel(index, name, "1", tag=tag)
    write(tmp_path, name)
    with pytest.raises(MlopsError, match=rf"cannot pack its wheels: {said}"):
        requirements.files(tmp_path, IMAGE, pack=True)
    assert not list((tmp_path / "build" / "wheels").glob("*[!t]"))


@pytest.mark.slow
def test_a_password_of_the_machines_own_index_is_not_repeated(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "HTTP error 401 while getting https://u:hunter2@host/simple/a"
    monkeypatch.setattr(requirements, "reason", lambda _: said)
    write(tmp_path, "nothing")
    with pytest.raises(MlopsError, match=r"while getting https://host/simple/a$"):
        requirements.files(tmp_path, IMAGE, pack=True)


@pytest.mark.slow
def test_a_requirement_of_a_requirement_may_not_change_the_image(
    tmp_path: Path, index: Path
) -> None:
    make_wheel(index, "numpy", "2.2.0")
    make_wheel(index, "swamp", "1", requires="numpy>=2.2")
    write(tmp_path, "swamp")
    with pytest.raises(
        MlopsError,
        match=r"cannot pack its wheels: swamp 1 depends on numpy>=2\.2; .*numpy==2\.1\.0$",
    ):
        requirements.files(tmp_path, IMAGE, pack=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("account", "aws", "packed"),
    [
        (ACCOUNT, {}, True),
        (ACCOUNT, {"package_index": True}, False),
        (ACCOUNT, {"package_index": True, "network_isolation": True}, True),
        (SANDBOX_ACCOUNT, {"package_index": True}, True),
    ],
)
def test_every_job_installs_and_wheels_travel_unless_an_index_is_reached(
    repo: Repo, index: Path, account: str, aws: dict[str, object], packed: bool
) -> None:
    write(repo.root, "forest\n")
    compiled = compile_pipeline(repo.configure(aws=aws), account)
    wheels = [key for key in compiled.objects if key.endswith(".whl")]
    assert len(wheels) == (2 if packed else 0)  # and one in Train's archive
    for step in json.loads(compiled.definition)["Steps"]:
        if step["Type"] == "Processing":
            entry = step["Arguments"]["AppSpecification"]["ContainerEntrypoint"]
            assert entry[1].endswith("/code/sm_mlops/tabular/install.py")


@pytest.mark.slow
def test_what_only_another_system_requires_is_packed_too(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from macOS for the image."""
    monkeypatch.setitem(requirements._MARKERS, "sys_platform", "other")
    make_wheel(index, "meadow", "1", requires='brook; sys_platform == "other"')
    make_wheel(index, "brook", "2", requires='swamp; sys_platform == "third"')
    make_wheel(index, "swamp", "1")
    with zipfile.ZipFile(index / "meadow-1-py3-none-any.whl", "a") as wheel:
        wheel.writestr("meadow/_vendor/sand-1.dist-info/METADATA", "Name: sand\n")
    write(tmp_path, 'meadow\nforest; sys_platform == "other"\n')
    found = {name for name in requirements.files(tmp_path, IMAGE, pack=True) if "/" in name}
    assert found == {
        f"wheels/{name}-py3-none-any.whl" for name in ("meadow-1", "brook-2", "forest-1.2")
    }


def test_what_an_extra_requires_on_another_system_is_left_out_by_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(requirements._MARKERS, "sys_platform", "other")
    needs = 'loop; extra == "fast" and sys_platform == "other"'
    make_wheel(tmp_path, "web", "1", requires=needs)
    make_wheel(tmp_path, "old", "1", requires="web (>=1.*)")
    for wanted, left in (["web"], []), (["web[fast]"], ["loop"]), (["old"], []):
        assert requirements._left_out(tmp_path, wanted, IMAGE) == left


@pytest.mark.slow
def test_another_requirement_is_other_code(repo: Repo) -> None:
    def codes() -> set[str]:
        objects = compile_pipeline(repo.configure(aws={"package_index": True}), ACCOUNT).objects
        return {key.split("/")[2] for key in objects}

    before = codes()
    write(repo.root, "forest==1\n")
    first = codes()
    write(repo.root, "forest==1  # the same\n")
    assert codes() == first
    write(repo.root, "forest==2\n")
    assert not codes() & first
    assert not first & before
    assert len(before) == len(first) == 3


def test_wheels_beside_the_code_travel_along(repo: Repo) -> None:
    make_wheel(repo.root / "model" / "wheels", "forest", "1")
    write(repo.root, "forest\n")
    found = requirements.files(repo.root, IMAGE)
    assert "wheels/forest-1-py3-none-any.whl" in found
    assert b"--find-links wheels\n" in found["requirements.txt"]
    assert b"--no-index" not in found["requirements.txt"]


@pytest.mark.slow
def test_a_new_wheel_beside_the_code_replaces_what_was_packed(repo: Repo, index: Path) -> None:
    own, name = repo.root / "model" / "wheels", "wheels/meadow-1-py3-none-any.whl"
    write(repo.root, "meadow\n")
    make_wheel(own, "meadow", "1")
    first = requirements.files(repo.root, IMAGE, pack=True)
    content = make_wheel(own, "meadow", "1", code="NEW = 1\n").read_bytes()
    assert requirements.files(repo.root, IMAGE, pack=True)[name] == content != first[name]
    make_wheel(own, "meadow", "2", requires="forest")
    found = requirements.files(repo.root, IMAGE, pack=True)
    assert {"wheels/meadow-2-py3-none-any.whl", "wheels/forest-1.2-py3-none-any.whl"} < set(found)


# Images.


def forest(repo: Repo) -> None:
    """Let the repo's scripts need nothing that only XGBoost's image has."""
    for name in ("train", "evaluate", "inference"):
        (repo.root / "model" / f"{name}.py").write_text("print()\n")


OWN = f"{ACCOUNT}.dkr.ecr.eu-west-1.amazonaws.com/team/forest:1.0"
PACKAGES = (
    "numpy==2.1.0\npandas==2.2.3\npyarrow==20.0.0\nPyYAML==6.0.1\nsagemaker_containers==2.8\n"
)


def images_of(definition: str) -> set[str]:
    found = re.findall(r'"(?:ImageUri|TrainingImage|Image)": "([^"]+)"', definition)
    assert len(found) == 4
    return set(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "address"),
    [
        ("xgboost-3.2-0", r"\d{12}\.dkr\.ecr\.eu-west-1\.amazonaws\.com/sagemaker-xgboost:3\.2-0"),
        ("sklearn-1.9-0", r"\d{12}\.dkr\.ecr\.eu-west-1\..*/sagemaker-scikit-learn:1\.9-0-cpu-py3"),
        (OWN, re.escape(OWN)),
    ],
)
def test_every_job_and_the_version_have_the_chosen_image(
    repo: Repo, image: str, address: str
) -> None:
    forest(repo)
    (repo.root / "environment.txt").write_text(PACKAGES)
    own = {"image_environment": "environment.txt"} if image == OWN else {}
    settings = repo.configure(image=image, hyperparameters=None, **own)
    [found] = images_of(compile_pipeline(settings, ACCOUNT).definition)
    assert re.fullmatch(address, found)


@pytest.mark.slow
def test_an_image_without_xgboost_refuses_the_library_s_training_until_it_is_required(
    repo: Repo, index: Path
) -> None:
    settings = repo.configure(image="sklearn-1.9-0", aws={"package_index": True})
    with pytest.raises(MlopsError, match=r"^mlops\.yaml: image sklearn-1\.9-0 has no xgboost: "):
        compile_pipeline(settings, ACCOUNT)
    write(repo.root, "xgboost\n")
    compile_pipeline(settings, ACCOUNT)
    write(repo.root, "xgboost<3\n")
    with pytest.raises(MlopsError, match=r"xgboost 3\.2\.0, which sm_mlops\.tabular needs"):
        compile_pipeline(settings, ACCOUNT)


@pytest.mark.slow
def test_what_the_report_needs_is_required_where_the_image_lacks_it(repo: Repo) -> None:
    forest(repo)
    (repo.root / "model" / "evaluate.py").write_text("from sm_mlops.tabular import evaluate\n")
    lines = {
        image: [
            content.decode().splitlines()[-1]
            for key, content in compile_pipeline(
                repo.configure(image=image, hyperparameters=None, aws={"package_index": True}),
                ACCOUNT,
            ).objects.items()
            if key.endswith("/requirements.txt")
        ]
        for image in ("xgboost-3.2-0", "sklearn-1.9-0")
    }
    assert lines == {"xgboost-3.2-0": [], "sklearn-1.9-0": ["matplotlib==3.10.9"]}


@pytest.mark.parametrize(
    ("image", "environment", "said"),
    [
        ("xgboost-1.7-1", None, "image must be one of xgboost-3.2-0, sklearn-1.9-0, or the addre"),
        ("docker.io/team/forest:1", None, "image must be one of"),
        (OWN.removesuffix(":1.0"), "environment.txt", "image must be one .* with a tag or digest"),
        (OWN.replace("eu-west-1", "us-east-1"), "environment.txt", "image is in us-east-1, but jo"),
        (OWN, None, "image_environment is missing"),
        (
            OWN.replace("team/forest", "sagemaker-xgboost"),
            "environment.txt",
            "image .* SageMaker's",
        ),
        ("sklearn-1.9-0", "environment.txt", "image_environment is for an image of your own"),
        (3, None, "image must be one of"),
    ],
)
def test_any_other_image_is_refused_by_name(
    repo: Repo, image: object, environment: str | None, said: str
) -> None:
    with pytest.raises(MlopsError, match=rf"^mlops\.yaml: {said}"):
        repo.configure(image=image, image_environment=environment)


@pytest.mark.slow
def test_an_image_of_the_team_s_must_have_what_jobs_need(repo: Repo) -> None:
    settings = repo.configure(image=OWN, image_environment="environment.txt")
    with pytest.raises(MlopsError, match=r"image_environment: cannot read .*environment\.txt"):
        compile_pipeline(settings, ACCOUNT)
    (repo.root / "environment.txt").write_text(PACKAGES.replace("pyarrow==20.0.0", "pyarrow"))
    settings = repo.settings()
    with pytest.raises(MlopsError, match=r"environment\.txt does not pin pyarrow, which jobs"):
        compile_pipeline(settings, ACCOUNT)


@pytest.mark.slow
def test_every_region_of_the_default_image_has_the_others() -> None:
    """Without this, regions.json would have to name each image."""
    from sagemaker.core import image_uris

    config = [image_uris.config_for_framework(i["sdk"][0]) for i in images.known().values()]
    regions = [
        set(c.get("training", c)["versions"][i["sdk"][1]]["registries"])
        for c, i in zip(config, images.known().values(), strict=True)
    ]
    assert all(each == regions[0] for each in regions)
