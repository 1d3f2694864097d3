"""Commits the pristine render, which later template updates are merged against, and says what comes next.

Runs in cookiecutter's own interpreter, so: standard library only, Python 3.9 or newer. Acts on nothing but the new folder.
"""

import json
import os
import subprocess
import tempfile

# Answers are rendered into this file. As JSON in a raw string they stay data, whatever they hold.
CONTEXT = r"""{{ cookiecutter | tojson }}"""

# The user's own configuration decides about the identity only: not about signing, hooks, ignored files or line endings.
SETTINGS = {
    "commit.gpgsign": "false",
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.hooksPath": os.path.join(".git", "no-hooks"),
    "gc.auto": "0",
    "user.useConfigOnly": "true",
}


def main() -> None:
    answers = json.loads(CONTEXT)
    folder = os.path.realpath(os.curdir)
    committed = wants_repository(folder) and first_commit(answers["author"])
    origin = f"{answers['github_owner']}/{answers['github_repo']}"
    # cruft writes its own file after this hook.
    cruft = "git add .cruft.json && git commit -m 'Follow the template' && " if "_commit" in answers else ""
    publish = f"git remote add origin https://github.com/{origin}.git && git push -u origin main"
    print(f"1. cd {answers['project_slug']} && make sandbox")
    print("2. Put your own data, target and quality gate into mlops.yaml, then run make sandbox again")
    print(f"3. {cruft}{publish}" if committed else f"3. Commit, and push to https://github.com/{origin}")


def wants_repository(folder: str) -> bool:
    """Whether `folder` is neither inside a repository nor below the temp folder, where cruft compares renders."""
    parents = [folder]
    while os.path.dirname(parents[-1]) != parents[-1]:
        parents.append(os.path.dirname(parents[-1]))
    if os.path.realpath(tempfile.gettempdir()) in parents:
        return False
    return not any(os.path.exists(os.path.join(parent, ".git")) for parent in parents)


def first_commit(author: str) -> bool:
    """Commits everything on `main`; False, with the reason printed, when git is missing or refuses."""
    nobody = ("-c", f"user.name={author}", "-c", "user.email=template@localhost")
    try:
        git("init", "--quiet", "--template=")
        git("symbolic-ref", "HEAD", "refs/heads/main")
        git("add", "--all")
        commit = ("commit", "--quiet", "--no-verify", "-m", "Render the template")
        try:
            git(*commit)
        except subprocess.CalledProcessError:
            git(*nobody, *commit)
    except FileNotFoundError:
        return False
    except subprocess.CalledProcessError as error:
        print(f"No first commit, because git said: {error.stdout.strip()}")
        return False
    return True


def git(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = [part for key, value in SETTINGS.items() for part in ("-c", f"{key}={value}")]
    subprocess.run(
        ["git", *settings, *arguments],
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    main()
