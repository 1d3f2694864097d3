"""What is installed where: each job of CI installs its group of the one lock, and no more."""

import ast
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from generated import RENDERED, locked
from rendering import ROOT, Bake, Rendered, run

SOURCE = ROOT / "src" / "sm_mlops"
# What the packages of the tool's own dependencies are imported as.
DEPLOY = {
    *("boto3", "botocore", "github", "jwt", "nacl", "packaging", "requests", "rich"),
    *("s3transfer", "typer", "yaml"),
}
# What no job that deploys has: it trains, tests, reads files of rows, or is the sandbox.
# The trigger's function has the packages of its own layer.
OTHERS = ("pipeline.py", "platform/", "sandbox/", "tabular/", "testing.py", "training/",
          "deployment/batch", "deployment/pieces.py",
          "monitoring/definition.py", "cli/sandbox_drift.py")  # fmt: skip
HEAVY = {"mypy", "moto", "numpy", "pandas", "pytest", "ruff", "sagemaker", "xgboost"}
GROUPS = {
    "ci.yml": {"check": "dev", "review": "dev"},
    "build.yml": {"train": "train", "follow": "deploy"},
    "deploy.yml": {"staging": "deploy", "production": "deploy"},
}


def groups() -> dict[str, set[str]]:
    """Names of packages by group of the rendered pyproject.toml, extras of the tool resolved."""
    table = tomllib.loads((RENDERED / "pyproject.toml").read_text(encoding="utf-8"))
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(item: Any) -> set[str]:
        if isinstance(item, dict):
            return of(item["include-group"])
        found = re.match(r"([\w-]+)(?:\[(.*)\])?", item)
        assert found
        if found[1] != "sm-mlops":
            return {found[1]}
        wanted = list(ours["dependencies"])
        for extra in filter(None, (found[2] or "").split(",")):
            wanted += ours["optional-dependencies"][extra]
        return {name for each in wanted for name in names(each)}

    def of(group: str) -> set[str]:
        return {name for item in table["dependency-groups"][group] for name in names(item)}

    return {group: of(group) for group in table["dependency-groups"]}


def test_jobs_that_deploy_install_nothing_of_training_sandbox_or_tests() -> None:
    found = groups()
    assert found["deploy"] < found["train"] < found["dev"]
    assert not found["deploy"] & HEAVY
    assert found["train"] & HEAVY == {"sagemaker"}
    assert found["dev"] >= HEAVY
    assert found["dev"] <= {*locked(RENDERED / "requirements.lock")}


def test_each_job_sets_up_its_own_group(default: Rendered) -> None:
    for name, wanted in GROUPS.items():
        jobs = yaml.safe_load(default.text(f".github/workflows/{name}"))["jobs"]
        assert jobs.keys() == wanted.keys()
        for job, group in wanted.items():
            steps = jobs[job]["steps"]
            [made] = [step["run"] for step in steps if "make setup" in step.get("run", "")]
            assert made == f"make setup FOR={group}", job
            [uv] = [step for step in steps if "setup-uv@" in step.get("uses", "")]
            # A pull request reads main's cache, of which it needs most, and saves none of its own.
            cache = {"cache-suffix": "train", "save-cache": False}
            assert uv["with"] == {
                "version-file": "pyproject.toml",
                "cache-dependency-glob": "requirements.lock",
                **(cache if group == "dev" else {"cache-suffix": group}),
            }
            assert steps.index(uv) < [step.get("run") for step in steps].index(made)


def test_each_stage_of_jenkins_sets_up_its_own_group(bake: Bake) -> None:
    repo = bake(ci="jenkins")
    text = repo.text("Jenkinsfile") + repo.text("Jenkinsfile.production")
    parts = re.split(r"stage\('([^']+)'\)", text)
    found = {}
    for name, stage in zip(parts[1::2], parts[2::2], strict=True):
        if made := re.search(r"sh 'make setup(?: FOR=(\w+))?'", stage):
            found[name] = made[1] or "dev"
    assert found == {
        "Lint and test": "dev",
        "Train and compare with the base": "dev",
        "Train": "train",
        "Staging": "deploy",
        "Production": "deploy",
    }


def imported(file: Path) -> set[str]:
    """Top-level packages that a module imports anywhere, and our own modules in full."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        found |= {name.partition(".")[0] for name in names}
    return found


def deploying() -> list[Path]:
    files = [*SOURCE.rglob("*.py")]
    return [f for f in files if not f.relative_to(SOURCE).as_posix().startswith(OTHERS)]


@pytest.mark.parametrize("file", deploying(), ids=lambda file: str(file.relative_to(SOURCE)))
def test_what_deploys_imports_only_what_its_group_has(file: Path) -> None:
    assert imported(file) - sys.stdlib_module_names - {"sm_mlops"} <= DEPLOY


@pytest.mark.slow
def test_every_module_that_deploys_can_be_imported_with_its_group_alone() -> None:
    """As in the job: whatever else is installed here cannot be found."""
    found = [file.relative_to(SOURCE.parent) for file in deploying()]
    modules = [".".join(f.with_suffix("").parts) for f in found]
    code = f"""
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(HEAVY)}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
for name in {modules}:
    if not name.endswith("__main__"):
        importlib.import_module(name.removesuffix(".__init__"))
print("all of them")
"""
    done = run("python", "-c", code, cwd=ROOT)
    assert (done.code, done.out.strip()) == (0, "all of them"), done.err


FAKE_UV = """#!/bin/sh
echo "$@" >>{calls}
while [ $# -gt 1 ]; do
    if [ "$1" = --output-file ]; then cat "$2" >>{calls}; echo renewed >"$2"; fi
    shift
done
exit {code}
"""


@pytest.mark.parametrize("folder", [ROOT, RENDERED], ids=["template", "rendered"])
@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("base", ["", "||||||| base\na==0\n"], ids=["merge", "diff3"])
def test_a_lock_with_conflict_markers_can_be_renewed_and_a_failure_leaves_it(
    folder: Path, code: int, base: str, tmp_path: Path
) -> None:
    here, calls = tmp_path / "a repo", tmp_path / "calls"
    for name in ("Makefile", "pyproject.toml"):
        for source in {folder, RENDERED}:
            part = source.relative_to(folder) if source.is_relative_to(folder) else Path()
            (here / part).mkdir(parents=True, exist_ok=True)
            (here / part / name).write_bytes((source / name).read_bytes())
    pins = f"<<<<<<< ours\na==1\n{base}=======\na==2\n>>>>>>> theirs\nb==1\n"
    locks = [here / "requirements.lock"]
    if folder == ROOT:
        trigger = Path("src/sm_mlops/platform/trigger/requirements.lock")
        locks += [here / trigger, here / RENDERED.name / "requirements.lock", here / "checkov.lock"]
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.write_text(pins)
    venv = here / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "uv").write_text(FAKE_UV.format(calls=calls, code=code))
    (venv / "python").write_text("#!/bin/sh\n")
    for program in venv.iterdir():
        program.chmod(0o755)
    environment = {"MAKEFLAGS": "", "MAKELEVEL": "0"}

    done = run("make", "lock", cwd=here, **environment)

    assert (done.code == 0) is (code == 0), done.err
    said = calls.read_text()
    kept = base.partition("\n")[2]
    assert f"a==1\n{kept}a==2\nb==1\n" in said and "--upgrade" not in said
    assert "<<<" not in said and "|||" not in said
    assert {lock.read_text() for lock in locks} == ({"renewed\n"} if code == 0 else {pins})
    run("make", "lock", "UPGRADE=1", cwd=here, **environment)
    assert "--upgrade" in calls.read_text()


def test_a_group_that_another_has_replaced_is_set_up_again(tmp_path: Path) -> None:
    """Jenkins keeps its workspace: the next build finds the .venv of the last stage."""
    here, calls = tmp_path / "a repo", tmp_path / "calls"
    venv = here / ".venv" / "bin"
    venv.mkdir(parents=True)
    (here / "Makefile").write_bytes((RENDERED / "Makefile").read_bytes())
    for name in ("pyproject.toml", "requirements.lock", "tool.txt"):
        (here / name).touch()
    (venv / "uv").write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    (venv / "python").write_text("#!/bin/sh\n")
    for program in venv.iterdir():
        program.chmod(0o755)
    for group in ("dev", "train", "train", "dev"):
        done = run("make", "setup", f"FOR={group}", cwd=here, MAKEFLAGS="", MAKELEVEL="0")
        assert done.code == 0, done.err
    said = calls.read_text()
    assert re.findall(r"--group (\w+)", said) == ["dev", "train", "dev"]
    assert said.count("pip sync") == 3


def test_a_virtual_environment_that_could_not_be_made_is_made_again(tmp_path: Path) -> None:
    """Without python3-venv, Debian's `python3 -m venv` leaves one without pip."""
    (tmp_path / "Makefile").write_bytes((RENDERED / "Makefile").read_bytes())
    for name in ("pyproject.toml", "requirements.lock", "tool.txt"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -m ] || exec {sys.executable} "$@"
mkdir -p "$3/bin"; printf '#!/bin/sh\\n' >"$3/bin/python"; chmod +x "$3/bin/python"
echo "ensurepip is not available"; exit 1
"""
    )
    python.chmod(0o755)
    for _ in range(2):
        done = run("make", "setup", "PYTHON=./python", cwd=tmp_path, MAKEFLAGS="", MAKELEVEL="0")
        assert done.code == 2 and "ensurepip is not available" in done.out, done.err
        assert not (tmp_path / ".venv").exists()


def test_an_environment_that_is_given_is_used_as_it_is(tmp_path: Path) -> None:
    """So the template's own environment, with the tool from its source, serves its renders."""
    (tmp_path / "Makefile").write_bytes((RENDERED / "Makefile").read_bytes())
    own = {"MAKEFLAGS": "", "MAKELEVEL": "0"}
    done = run("make", "setup", f"VENV={sys.prefix}", cwd=tmp_path, **own)
    assert done.code == 0, done.err
    assert [file.name for file in tmp_path.iterdir()] == ["Makefile"]


@pytest.mark.parametrize("folder", [ROOT, RENDERED], ids=["template", "rendered"])
def test_uv_itself_is_installed_by_the_hashes_of_the_lock(folder: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for name in ("cookiecutter.json", "pyproject.toml", "tool.txt"):
        (tmp_path / name).touch()
    python, given = tmp_path / ".venv" / "bin" / "python", tmp_path / "given"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >{given}\ncat >>{given}\nexit 1\n')
    python.chmod(0o755)
    done = run("make", "setup", cwd=tmp_path, MAKEFLAGS="", MAKELEVEL="0")
    assert given.exists(), done.out + done.err
    arguments, _, requirements = given.read_text().partition("\n")
    assert "--require-hashes" in arguments and "--only-binary :all:" in arguments
    assert re.fullmatch(
        r"uv==[\d.]+ \\\n(    --hash=sha256:\w{64} \\\n)+    --hash=sha256:\w{64}\n", requirements
    )
