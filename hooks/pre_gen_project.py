"""Refuses answers that AWS, GitHub or a file system would reject, before a file is written.

Runs in cookiecutter's own interpreter: standard library only, Python 3.9 or newer. Knows nothing
but the answers.
"""

import os
import sys

# Cookiecutter puts this script into the temp folder, where anybody may put a json.py.
if __name__ == "__main__" and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

import json
import re

# Answers are rendered into this file. As JSON in a raw string, they stay data whatever they hold.
ANSWERS = r"""{{ cookiecutter | tojson }}"""
# Before cookiecutter handed those of the command line to Jinja. (cruft does not keep them.)
GIVEN = r"""{{ _cookiecutter | default({}) | tojson }}"""

# `cruft update` hands stored answers to Jinja again: one that looks like Jinja would run some day.
JINJA = r"[{][#%{]"
TEXT = rf"(?!.*{JINJA})\S(.*\S)?"
TEXT_RULE = (
    "printable text on one line, not empty, without Jinja's opening brackets or outer spaces"
)

# field: (pattern of the whole answer, longest length, the rule in words, an example)
RULES = {
    "project_name": (TEXT, 64, TEXT_RULE, "Churn Prediction"),
    "project_slug": (
        r"[a-z][a-z0-9]*(-[a-z0-9]+)*",
        64,
        "lowercase letters, digits and single hyphens, starting with a letter",
        "churn-prediction",
    ),
    "description": (TEXT, 200, TEXT_RULE, "Predicts which customers will leave"),
    "author": (TEXT, 100, TEXT_RULE, "Data Science"),
    "github_owner": (
        r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*(_[A-Za-z0-9]+)?",
        39,
        "a GitHub user or organization: letters, digits and single hyphens",
        "my-org",
    ),
    "github_repo": (
        r"(?!\.{1,2}$)(?!.*\.(git|wiki)$)[A-Za-z0-9_.][A-Za-z0-9_.-]*",
        100,
        "a GitHub repository without owner: letters, digits, '-', '_', '.', not ending in .git",
        "churn-prediction",
    ),
    "aws_region": (
        r"[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}",
        32,
        "an AWS region code",
        "eu-central-1",
    ),
    "sagemaker_project": (
        # SageMaker lowercases names in ARNs, and IAM compares case-sensitively; platform/
        # is where the artifact bucket holds what all projects share, and <project>-monitor the
        # pipeline that checks the stages of a project.
        r"(?!platform$|.*-monitor$)[a-z](-*[a-z0-9])*",
        32,
        "lowercase letters, digits and inner hyphens, starting with a letter, not platform, not "
        "ending in -monitor (so is called the pipeline that checks a project)",
        "churn-prediction",
    ),
    "github_sign_in": (r"oidc|iam-user", 8, "oidc or iam-user", "oidc"),
    "ci": (r"github-actions|jenkins", 14, "github-actions or jenkins", "github-actions"),
}

# A git address with a user of the web, who may be a token, or with a password, or with a query.
SIGNED_IN = r"(git\+)?(https?://.*[@?;]|ssh://[^/@]*:[^/@]*@)"
WINDOWS_DEVICES = r"con|prn|aux|nul|com[0-9]|lpt[0-9]"


def read(folder: str, name: str) -> dict:
    """Return a JSON file of the template; nothing if it is not found.

    Linux shows where cookiecutter stands while hooks run: in the template's folder.
    """
    for place in (folder, f"/proc/{os.getppid()}/cwd"):
        try:
            with open(os.path.join(place, name), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            continue
    return {}


def lacking(region: str, regions: dict) -> str:
    """Return why a project does not work in a region; "" if it does, or if nothing is known."""
    if not regions or regions.get(region) == []:
        return ""
    good = [name for name, missing in regions.items() if not missing]
    near = [name for name in good if name.partition("-")[0] == region.partition("-")[0]]
    why = f"has no {' and no '.join(regions[region])}" if region in regions else "is not known"
    return f"{region} {why}; choose one of {', '.join(near or good)}"


def problems(answers: dict, given: dict, known: dict, regions: dict) -> list:
    """Return a line for each answer that breaks its rule, in the order of the questions.

    `given` are the answers before cookiecutter evaluated them, `known` the template's own;
    `regions` has what each region lacks.
    """
    lines = []
    for field, (pattern, longest, rule, example) in RULES.items():
        answer = answers.get(field)
        if field == "project_slug":
            # Its folder exists by now, so cookiecutter.json made the name harmless before this ran.
            answer = answers.get("__project_slug_given", answer)
        is_jinja = re.search(JINJA, str(given.get(field)))
        if is_jinja and (given[field] != known[field] if known else pattern == TEXT):
            answer = given[field]
        if not (
            isinstance(answer, str)
            and len(answer) <= longest
            and answer.isprintable()
            and re.fullmatch(pattern, answer)
        ):
            broken = f"must be {rule}, at most {longest} characters"
        elif field == "project_slug" and re.fullmatch(WINDOWS_DEVICES, answer):
            broken = "must not be the name of a Windows device"
        elif field == "aws_region" and lacking(answer, regions):
            lines.append(f"{field}: {lacking(answer, regions)}")
            continue
        else:
            continue
        # ASCII and cut, so that whatever was answered stays on this line.
        shown = ascii(answer)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        lines.append(f"{field}: {broken}, for example {example}; got {shown}")
    # Cruft writes the address to .cruft.json and this context with it; cookiecutter does neither.
    if "_commit" in answers and re.match(SIGNED_IN, str(answers.get("_template"))):
        lines.append(
            "cruft would write the user or password in the template's address to .cruft.json: give "
            "the address without them; git asks, or its credential helper knows them"
        )
    return lines


if __name__ == "__main__":
    answers = json.loads(ANSWERS)
    folder = answers.get("_repo_dir", "")
    known = read(folder, "cookiecutter.json")
    regions = read(folder, os.path.join("src", "sm_mlops", "regions.json"))
    refused = problems(answers, json.loads(GIVEN), known, regions)
    if refused:
        sys.exit("\n".join(refused))
