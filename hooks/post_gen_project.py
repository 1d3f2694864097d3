"""Refuses answers that AWS, GitHub or a file system would reject; then pins the tool in tool.txt,
commits the pristine render, which later updates are merged against, says what comes next, and
offers to connect the new repo to AWS and GitHub.

Runs in cookiecutter's own interpreter: standard library only, Python 3.9 or newer. Without a yes it
acts on nothing but the new folder. It fails only for an answer: cookiecutter deletes the folder.
One hook, because starting Python a second time takes longer than all that this one does itself.
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


# Cookiecutter leaves files out, but makes their folder all the same.
WORKFLOWS = os.path.join(".github", "workflows")

GIT = ("git", "git.exe", "git.cmd")
SAID = ".said-by-git"
# Cookiecutter's own abbreviations. A clone knows the address that one of the user's stands for.
HOSTS = {
    "gh": "https://github.com/",
    "gl": "https://gitlab.com/",
    "bb": "https://bitbucket.org/",
}
HEX = "0123456789abcdef"
MESSAGE = b"Render the template\n.\n"

# Answers the question in advance, also at a terminal: yes, plan or no.
REGISTER = "SM_MLOPS_REGISTER"
COMMANDS = {"yes": ["bootstrap", "--yes"], "plan": ["bootstrap", "--plan"], "no": []}
QUESTION = "Connect it to AWS and GitHub now? Shows a plan before it creates anything. [y/N] "
# What the command needs of an environment, besides the repo itself.
NEEDED = ("boto3", "github", "nacl", "rich", "sm_mlops", "typer", "uv", "yaml")
SUPPORTED = ((3, 11), (3, 14))


def main() -> None:
    answers = json.loads(ANSWERS)
    folder = template_folder(answers)
    known = read(folder, "cookiecutter.json")
    regions = read(folder, os.path.join("src", "sm_mlops", "regions.json"))
    refused = problems(answers, json.loads(GIVEN), known, regions)
    if refused:
        if os.path.exists(".git"):
            refused.append(
                "Until this was found, the template's files replaced those here, and all others in "
                "infra, model, pipeline and tests were deleted: see `git status`"
            )
        sys.exit("\n".join(refused))
    if os.path.isdir(WORKFLOWS) and not os.listdir(WORKFLOWS):
        os.removedirs(WORKFLOWS)
    # Variables of an outer git command would point at its repository.
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[variable]
    parents = here_and_above(os.path.realpath(os.curdir))
    # Cookiecutter has put this script into the temp folder, which costs less to see than to import.
    temporary = os.path.dirname(os.path.realpath(__file__)) in parents
    problem = pin_tool(answers, folder)
    if temporary and "_commit" in answers:
        # `cruft update` and `cruft diff` compare renders there, and print the difference.
        return
    if problem:
        print(problem)
    inside_repository = any(os.path.exists(os.path.join(folder, ".git")) for folder in parents)
    committed = not temporary and not inside_repository and first_commit()
    print(next_steps(answers, committed), flush=True)
    if not temporary:
        connect(answers["project_slug"])


def read(folder: str, name: str) -> dict:
    """Return a JSON file of the template; nothing if it is not found."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
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


def pin_tool(answers: dict, folder: str) -> str:
    """Write `tool.txt`: the one line that says where the repo gets the tool from, and which one.

    A git address at the rendered commit where others can clone it, else a wheel in `vendor/`.
    Returns what stopped it, in one line, or nothing.
    """
    try:
        pin = answers.get("_tool_pin") or pin_of_address(answers, folder)
        if pin:
            with open("tool.txt", "w", encoding="utf-8", newline="\n") as file:
                file.write(pin + "\n")
        else:
            vendor(folder)
    except Exception as error:
        # Without the line the repo is still usable, and a failing hook would delete it.
        return (
            f"tool.txt could not be written ({type(error).__name__}: {error}). Write it by hand: "
            "sm-mlops @ git+https://HOST/OWNER/sm-mlops@COMMIT"
        )
    return ""


def template_folder(answers: dict) -> str:
    """Return the folder of the template that was rendered.

    Its name is relative to where cookiecutter was called, which only Linux tells for sure: there
    cookiecutter and cruft stand in the template's folder while hooks run.
    """
    given = answers.get("_repo_dir") or answers.get("_template", "")
    starts = (answers.get("_output_dir", ""), os.environ.get("PWD", ""), os.curdir)
    candidates = [f"/proc/{os.getppid()}/cwd", *(os.path.join(start, given) for start in starts)]
    for folder in candidates:
        if os.path.isfile(os.path.join(folder, "src", "sm_mlops", "upgrade", "wheel.py")):
            return os.path.realpath(folder)
    return ""


def pin_of_address(answers: dict, folder: str) -> str:
    """Return the pin to the address that was rendered from; nothing where there is none."""
    template, commit = answers.get("_template", ""), answers.get("_commit", "")
    if template.lower().endswith(".zip"):
        return pin_of_zip(template)
    if commit and not os.path.isdir(template):
        return pin_of_commit(template, commit)
    # Cruft renders a clone of the folder that it was given, cookiecutter the folder itself.
    own = template if commit else folder if answers.get("_repo_dir") == template else ""
    folder = own or folder
    if not os.path.exists(os.path.join(folder, ".git")):
        return ""
    asked = ["rev-parse HEAD", "config --get remote.origin.url"]
    if own:
        asked.append("for-each-ref --count=1 --contains HEAD refs/remotes/origin")
        asked.append("status --porcelain -unormal -- src cookiecutter.json pyproject.toml LICENSE")
    head, address, *more = git(folder, asked) or ("", "")
    # One line says that origin has the commit; each further one names a change.
    if own and (len(more) != 1 or "\trefs/" not in more[0] or commit not in ("", head)):
        return ""
    return pin_of_commit(address, head)


def pin_of_commit(address: str, commit: str) -> str:
    """Return the pin to a commit; nothing where the address means nothing to others."""
    address = bare(address)
    return f"sm-mlops @ git+{address}@{commit}" if address and len(commit) == 40 else ""


def pin_of_zip(template: str) -> str:
    """Return the pin to a zip that cookiecutter has downloaded, or to the commit it was made of.

    GitHub and GitLab end the archive of a commit with its name. Any other is pinned by its hash.
    """
    address = bare(template)
    kept = os.path.join(os.path.expanduser("~"), ".cookiecutters", template.rpartition("/")[2])
    if not address or not os.path.isfile(kept):
        return ""
    with open(kept, "rb") as file:
        content = file.read()
    commit = content[-40:].decode("ascii", "replace")
    if content[-42:-40] == b"(\0" and "/archive/" in address and not commit.strip(HEX):
        repository = address.partition("/archive/")[0]
        return pin_of_commit(repository[:-2] if repository[-2:] == "/-" else repository, commit)
    import hashlib

    return f"sm-mlops @ {address} --hash=sha256:{hashlib.sha256(content).hexdigest()}"


def bare(address: str) -> str:
    """Return a git or zip address without user, password, token and query; nothing for a path.

    The user of an ssh address is kept: it is everybody's `git`, and ssh needs it.
    """
    short, _, rest = address.partition(":")
    if short in HOSTS and not rest.startswith("//"):
        address = HOSTS[short] + rest
    found = re.fullmatch(
        r"(?:git\+)?(https?|ssh|git)://(?:([^/]*)@)?([^/?#@]+)(/[^?#;]+).*", address
    )
    if found:
        scheme, user, host, path = found.groups()
    else:
        # user@host:path, as git has it from ssh.
        found = re.fullmatch(r"([\w.-]+)@([\w.-]+):/?([^?#]+)", address)
        if not found:
            return ""
        scheme, (user, host, path) = "ssh", found.groups()
        path = "/" + path
    # A password with a raw slash would look like a host and the start of a path.
    if not re.fullmatch(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d+)?/[!-?A-~]+", host + path, re.ASCII):
        return ""
    user = (user or "").partition(":")[0]
    return f"{scheme}://{user + '@' if scheme == 'ssh' and user else ''}{host}{path.rstrip('/')}"


def git(folder: str, commands: list) -> list:
    """Return the lines that git's commands print about a folder; none if it refuses or is missing.

    One shell takes less time than importing `subprocess`. The folder is in no command: its name may
    hold what a shell obeys.
    """
    os.environ["SM_MLOPS_TEMPLATE"] = folder
    named = '"%SM_MLOPS_TEMPLATE%"' if os.name == "nt" else '"$SM_MLOPS_TEMPLATE"'
    asked = " && ".join(f"git -C {named} {command}" for command in commands)
    failed = os.system(f"({asked}) >{SAID} 2>{os.devnull}")  # nosec B605 # no answer is in it
    del os.environ["SM_MLOPS_TEMPLATE"]
    with open(SAID, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    os.remove(SAID)
    return [] if failed else lines


def vendor(folder: str) -> None:
    """Build the wheel into `vendor/`, with the template's own code for it."""
    if not folder:
        raise FileNotFoundError("the template's folder is unknown")
    source = os.path.join(folder, "src")
    if fits(sys.version_info):
        from pathlib import Path

        # The template stays as it is.
        sys.dont_write_bytecode = True
        sys.path.insert(0, source)
        from sm_mlops.upgrade import wheel

        wheel.vendor(Path(), Path(folder))
        return
    import subprocess

    code = "import sys, pathlib; sys.path.insert(0, sys.argv[1] + '/src'); "
    code += (
        "from sm_mlops.upgrade import wheel; p = pathlib.Path; wheel.vendor(p(), p(sys.argv[1]))"
    )
    subprocess.run([first_python() or "python3", "-B", "-c", code, folder], check=True)


def here_and_above(folder: str) -> list:
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    return folders


def first_commit() -> bool:
    """Commit everything on `main` but what Python left in the template; False when git is missing,
    or refuses and says why itself.

    `fast-import` takes half the time of `add` and `commit`, and heeds nothing of the user's
    configuration that would stop the commit or change the files: signing, hooks, line endings.
    One shell takes less time than importing `subprocess`; nothing in its commands is an answer.
    """
    programs = [os.path.join(path, name) for path in os.get_exec_path() for name in GIT]
    if not any(map(os.path.exists, programs)):
        return False
    # EMAIL is git's last resort.
    os.environ.setdefault("EMAIL", "template@localhost")
    signature, commit = os.path.join(".git", "signature"), os.path.join(".git", "commit")
    who = "git -c user.useConfigOnly=false"
    if os.system(  # nosec B605 # no answer is in it
        "git init --quiet --template= --initial-branch=main"
        f" && ({who} var GIT_COMMITTER_IDENT >{signature} 2>{commit}"
        f" || {who} -c user.name=Template var GIT_COMMITTER_IDENT >{signature})"
    ):
        return False
    with open(signature, "rb") as file:
        parts = [b"commit refs/heads/main\ncommitter ", file.read(), b"data <<.\n", MESSAGE]
    for folder, folders, names in os.walk("."):
        folders[:] = sorted(set(folders) - {".git", "__pycache__"})
        for name in sorted(names):
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                content = file.read()
            mode = b"100755" if os.stat(path).st_mode & 0o100 else b"100644"
            path = os.path.relpath(path).replace(os.sep, "/")
            parts += [b"M ", mode, b" inline ", os.fsencode(path), b"\n"]
            parts += [b"data %d\n" % len(content), content, b"\n"]
    with open(commit, "wb") as file:
        file.write(b"".join(parts))
    # A megabyte needs neither compression nor, as it can be rendered again, to survive a power cut.
    quick = "-c core.fsync=none -c pack.compression=0 -c fastimport.unpackLimit=1"
    command = f"git {quick} fast-import --quiet --depth=0 <{commit} && git reset --quiet"
    failed = os.system(command)  # nosec B605 # no answer is in it
    os.remove(signature)
    os.remove(commit)
    return not failed


def next_steps(answers: dict, committed: bool) -> str:
    origin = f"https://github.com/{answers['github_owner']}/{answers['github_repo']}"
    publish = f"git remote add origin {origin}.git && git push -u origin main"
    if "_commit" in answers:
        # cruft writes this file after the hook, so the first commit cannot hold it.
        publish = f"git add .cruft.json && git commit -m 'Follow the template' && {publish}"
    by_hand = publish if committed else f"commit, then push to {origin}"
    return "\n".join(
        (
            f"1. cd {answers['project_slug']} && make sandbox",
            "2. Set your own data, target and quality gate in mlops.yaml, and run it again",
            "3. .venv/bin/mlops bootstrap connects it to AWS and GitHub; to push only: " + by_hand,
        )
    )


def connect(slug: str) -> None:
    """Run the new repo's `mlops bootstrap` if that is wanted, and say how to finish it by hand.

    Ctrl-C ends it where it is; what it had done stays, and the next one goes on from there.
    """
    try:
        command = wanted()
        if command and not bootstrap(command):
            print(
                "\nThe repo is complete, but not connected to AWS and GitHub: see above what was "
                "done and what failed.\nTo finish it: "
                f"cd {slug} && make setup && .venv/bin/mlops bootstrap"
            )
    except (KeyboardInterrupt, OSError) as error:
        why = f": {error}" if isinstance(error, OSError) else ""
        print(
            f"\nStopped{why}. The repo is complete. To connect it to AWS and GitHub: "
            f"cd {slug} && make setup && .venv/bin/mlops bootstrap"
        )


def wanted() -> list:
    """Return what to call `mlops` with; nothing to leave it."""
    given = os.environ.get(REGISTER, "").strip().lower()
    if given in COMMANDS:
        return COMMANDS[given]
    if given:
        print(f"{REGISTER}={given} must be yes, plan or no: nothing was connected")
        return []
    there = [stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)]
    if not all(there):
        return []
    try:
        answer = input(QUESTION)
    except EOFError:
        answer = ""
    # It asks again, after the plan.
    return ["bootstrap"] if answer.strip().lower() in ("y", "yes") else []


def bootstrap(command: list) -> bool:
    """Return whether the command went through."""
    import subprocess

    python = own_python()
    if not python:
        with_python = sys.executable if fits(sys.version_info) else first_python()
        if not with_python:
            print("It needs Python 3.11, 3.12 or 3.13, which was not found", flush=True)
            return False
        if subprocess.call(["make", "--silent", "setup", f"PYTHON={with_python}"]):
            return False
        python = os.path.join(".venv", "bin", "python")
    # Whatever environment cookiecutter lives in, it is not the repo's.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    return not subprocess.call([python, "-m", "sm_mlops", *command], env=environment)


def own_python() -> str:
    """Return this interpreter, if all that is needed is installed beside it."""
    from importlib.util import find_spec

    complete = fits(sys.version_info) and all(find_spec(name) for name in NEEDED)
    return sys.executable if complete else ""


def first_python() -> str:
    from shutil import which

    for minor in range(SUPPORTED[1][1] - 1, SUPPORTED[0][1] - 1, -1):
        found = which(f"python3.{minor}")
        if found:
            return found
    return ""


def fits(version: tuple) -> bool:
    return SUPPORTED[0] <= tuple(version[:2]) < SUPPORTED[1]


if __name__ == "__main__":
    main()
