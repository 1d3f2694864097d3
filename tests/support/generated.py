"""Writes what this repo derives: the table of questions, the tree of a render, the regions.

`make generate` runs it; tests compare. Knows nothing of rendering.
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from sm_mlops import images

ROOT = Path(__file__).resolve().parents[2]
RENDERED = ROOT / "{{cookiecutter.project_slug}}"
README = ROOT / "README.md"
TREE = ROOT / "tests" / "template" / "tree.txt"
REGIONS = ROOT / "src" / "sm_mlops" / "regions.json"
TEMPLATES = (*(REGIONS.parent / "platform").glob("*.yml"), RENDERED / "infra" / "endpoint.yml")
TYPES = {
    found
    for file in TEMPLATES
    for found in re.findall(r"^    Type: (AWS::\S+)$", file.read_text(encoding="utf-8"), re.M)
}


def questions() -> dict[str, object]:
    """Return the questions in order, with their defaults (a list is a choice)."""
    raw = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    return {name: default for name, default in raw.items() if not name.startswith("_")}


def locked(lock: Path) -> dict[str, str]:
    """Return name and version of every pin in a lock file."""
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return dict(pins)


def question_table(defaults: dict[str, str]) -> str:
    """Return a Markdown table of the questions; `defaults` has the answer to each by default."""
    raw = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    rows = ["| question | used for | default |", "|---|---|---|"]
    for name in questions():
        prompt = raw["__prompts__"][name]
        if isinstance(prompt, dict):
            choices = "; ".join(f"`{c}`: {text}" for c, text in prompt.items() if c[0] != "_")
            prompt = f"{prompt['__prompt__']}. {choices}"
        rows.append(f"| `{name}` | {prompt} | `{defaults[name]}` |")
    return "\n".join(rows)


def with_questions(readme: str, defaults: dict[str, str]) -> str:
    """Return `readme` with its table of questions renewed."""
    marks = r"(<!-- questions: written by `make generate` -->\n).*?(\n<!-- end of questions -->)"
    return re.sub(marks, lambda m: m[1] + question_table(defaults) + m[2], readme, flags=re.DOTALL)


def clean_copy(target: Path) -> Path:
    """Copy the template without what git ignores: caches, environments, what a run left."""
    ignored = {
        line.strip("/")
        for file in (ROOT / ".gitignore", RENDERED / ".gitignore")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".git", *ignored))
    return target


def tree(repo: Path) -> str:
    """Return every file of a rendered repo, one path a line, without the tool's wheel.

    Only a folder that no one else can clone is rendered with one.
    """
    found = (file for file in repo.rglob("*") if file.is_file() and file.suffix != ".whl")
    files = (file.relative_to(repo) for file in found)
    paths = sorted(
        file.as_posix() for file in files if not {".git", "__pycache__"} & set(file.parts)
    )
    return "\n".join(paths) + "\n"


def rendered_tree() -> str:
    """Return the tree of a render with default answers."""
    from cookiecutter.main import cookiecutter

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(f"replay_dir: {json.dumps(folder)}\n", encoding="utf-8")
        output = Path(folder) / "output"
        template = str(clean_copy(Path(folder) / "template"))
        return tree(
            Path(
                cookiecutter(
                    template,
                    no_input=True,
                    output_dir=str(output),
                    config_file=str(config),
                )
            )
        )


def regions() -> str:
    """Return as JSON what each region of SageMaker lacks, by botocore's data and the SDK's, and the
    first of our types that CloudFormation lacks where nothing else is lacking, by cfn-lint's."""
    import botocore.session
    from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER as schemas
    from sagemaker.core import image_uris

    framework, version = images.known()[images.DEFAULT]["sdk"]
    session, found = botocore.session.get_session(), {}
    for partition in ("aws", "aws-us-gov", "aws-cn"):
        # botocore has CodeConnections' regions under the service's former name.
        services = {"Service Catalog": "servicecatalog", "CodeConnections": "codestar-connections"}
        there = {
            words: session.get_available_regions(service, partition)
            for words, service in services.items()
        }
        for region in session.get_available_regions("sagemaker", partition):
            lacking = [words for words, names in there.items() if region not in names]
            try:
                image_uris.retrieve(framework, region, version=version)
            except ValueError:
                lacking.insert(0, f"SageMaker image of XGBoost {version}")
            unknown = TYPES - set(schemas.get_resource_types(region))
            if unknown and not lacking:
                lacking.append(f"{min(unknown)} in CloudFormation")
            found[region] = lacking
    rows = (f"  {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    return "{\n" + ",\n".join(rows) + "\n}\n"


def default_answers(**answers: str) -> dict[str, str]:
    """Return all answers when only these are given, whatever the user's configuration says."""
    from cookiecutter.generate import generate_context
    from cookiecutter.prompt import prompt_for_config

    context = generate_context(context_file=str(ROOT / "cookiecutter.json"), extra_context=answers)
    return dict(prompt_for_config(context, no_input=True))


def main() -> None:
    """Write everything derived; with `copy FOLDER`, a clean copy of the template instead."""
    if sys.argv[1:2] == ["copy"]:
        target = Path(sys.argv[2])
        shutil.rmtree(target, ignore_errors=True)
        clean_copy(target)
        return
    REGIONS.write_text(regions(), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(with_questions(readme, default_answers()), encoding="utf-8")
    TREE.write_text(rendered_tree(), encoding="utf-8")


if __name__ == "__main__":
    main()
