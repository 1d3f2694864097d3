"""Removes folders without files, commits the pristine render, which later updates are merged
against, says what comes next, and offers to connect the new repo with AWS and GitHub.

Runs in cookiecutter's own interpreter: standard library only, Python 3.9 or newer. Without a yes it
acts on nothing but the new folder, and it never fails: cookiecutter would delete the repo.
"""

import os
import sys

# The hook before this one admits only letters, digits, '-', '_' and '.' in these names.
FOLDER = "{{ cookiecutter.project_slug }}"
ORIGIN = "https://github.com/{{ cookiecutter.github_owner }}/{{ cookiecutter.github_repo }}"
BY_CRUFT = "{{ '_commit' in cookiecutter }}" == "True"
# Cookiecutter leaves files out, but makes their folder all the same.
WORKFLOWS = os.path.join(".github", "workflows")

GIT = ("git", "git.exe", "git.cmd")
MESSAGE = b"Render the template\n.\n"

# Answers the question where nobody is at the terminal: yes, plan or no.
REGISTER = "SM_MLOPS_REGISTER"
ANSWERS = {"yes": ["bootstrap", "--yes"], "plan": ["bootstrap", "--plan"], "no": []}
QUESTION = "Connect it with AWS and GitHub now? You see a plan before anything is made. [y/N] "
# What the command needs of an environment, besides the repo itself.
NEEDED = ("boto3", "github", "nacl", "rich", "typer", "uv", "yaml")
SUPPORTED = ((3, 11), (3, 14))


def main() -> None:
    if os.path.isdir(WORKFLOWS) and not os.listdir(WORKFLOWS):
        os.removedirs(WORKFLOWS)
    parents = here_and_above(os.path.realpath(os.curdir))
    # Cookiecutter has put this script into the temp folder, which costs less to see than to import.
    temporary = os.path.dirname(os.path.realpath(__file__)) in parents
    if temporary and BY_CRUFT:
        # `cruft update` and `cruft diff` compare renders there, and print the difference.
        return
    inside_repository = any(os.path.exists(os.path.join(folder, ".git")) for folder in parents)
    print(next_steps(not temporary and not inside_repository and first_commit()), flush=True)
    if not temporary:
        connect()


def here_and_above(folder: str) -> list:
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    return folders


def first_commit() -> bool:
    """Commits everything on `main`. False when git is missing, or refuses and says why itself.

    `fast-import` takes half the time of `add` and `commit`, and heeds nothing of the user's
    configuration that would stop the commit or change the files: signing, hooks, line endings.
    One shell takes less time than importing `subprocess`; nothing in its commands is an answer.
    """
    programs = [os.path.join(path, name) for path in os.get_exec_path() for name in GIT]
    if not any(map(os.path.exists, programs)):
        return False
    # Variables of an outer git command would point at its repository. EMAIL is git's last resort.
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        del os.environ[variable]
    os.environ.setdefault("EMAIL", "template@localhost")
    signature, commit = os.path.join(".git", "signature"), os.path.join(".git", "commit")
    who = "git -c user.useConfigOnly=false"
    if os.system(
        "git init --quiet --template= --initial-branch=main"
        f" && ({who} var GIT_COMMITTER_IDENT >{signature} 2>{commit}"
        f" || {who} -c user.name=Template var GIT_COMMITTER_IDENT >{signature})"
    ):
        return False
    with open(signature, "rb") as file:
        parts = [b"commit refs/heads/main\ncommitter ", file.read(), b"data <<.\n", MESSAGE]
    for folder, folders, names in os.walk("."):
        folders[:] = sorted(set(folders) - {".git"})
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
    failed = os.system(f"git {quick} fast-import --quiet --depth=0 <{commit} && git reset --quiet")
    os.remove(signature)
    os.remove(commit)
    return not failed


def next_steps(committed: bool) -> str:
    publish = f"git remote add origin {ORIGIN}.git && git push -u origin main"
    if BY_CRUFT:
        # cruft writes this file after the hook, so the first commit cannot hold it.
        publish = f"git add .cruft.json && git commit -m 'Follow the template' && {publish}"
    by_hand = publish if committed else f"commit, and push to {ORIGIN}"
    return "\n".join(
        (
            f"1. cd {FOLDER} && make sandbox",
            "2. Name your own data, target and quality gate in mlops.yaml, and run it again",
            "3. .venv/bin/mlops bootstrap connects it with AWS and GitHub; to push alone: "
            + by_hand,
        )
    )


def connect() -> None:
    """Runs the new repo's `mlops bootstrap` if that is wanted, and tells how to finish it by hand.

    Ctrl-C ends it where it is; what it had done stays, and the next one goes on from there.
    """
    try:
        command = wanted()
        if command and not bootstrap(command):
            print(
                "\nThe repo is complete, its connection with AWS and GitHub is not: what was done, "
                "and what stopped it, stands above.\nTo finish it: "
                f"cd {FOLDER} && make setup && .venv/bin/mlops bootstrap"
            )
    except (KeyboardInterrupt, OSError) as error:
        why = f": {error}" if isinstance(error, OSError) else ""
        print(
            f"\nStopped{why}. The repo is complete. To connect it with AWS and GitHub: "
            f"cd {FOLDER} && make setup && .venv/bin/mlops bootstrap"
        )


def wanted() -> list:
    """What `mlops` is to be called with; nothing when it is not."""
    given = os.environ.get(REGISTER, "").strip().lower()
    if given in ANSWERS:
        return ANSWERS[given]
    if given:
        print(f"{REGISTER}={given} is none of yes, plan and no: nothing was connected")
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
    """Whether the command went through."""
    import subprocess

    python = own_python()
    if not python:
        with_python = sys.executable if fits(sys.version_info) else first_python()
        if not with_python:
            print("It needs Python 3.11, 3.12 or 3.13, and found none", flush=True)
            return False
        if subprocess.call(["make", "--silent", "setup", f"PYTHON={with_python}"]):
            return False
        python = os.path.join(".venv", "bin", "python")
    # Whatever environment cookiecutter lives in, it is not the repo's.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    return not subprocess.call([python, "-m", "ops", *command], env=environment)


def own_python() -> str:
    """This interpreter, if all that is needed is installed beside it."""
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
