"""Commits the pristine render, which later updates are merged against, and says what comes next.

Runs in cookiecutter's own interpreter: standard library only, Python 3.9 or newer. Acts on nothing
but the new folder.
"""

import json
import os
import subprocess
import tempfile

# Answers are rendered into this file. As JSON in a raw string they stay data, whatever they hold.
CONTEXT = r"""{{ cookiecutter | tojson }}"""

# Of the user's own configuration only the identity counts: signing, hooks, ignored files and line
# endings would make the commit fail, or something other than the render.
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
    parents = here_and_above(os.path.realpath(os.curdir))
    temporary = os.path.realpath(tempfile.gettempdir()) in parents
    by_cruft = "_commit" in answers
    if temporary and by_cruft:
        # `cruft update` and `cruft diff` compare renders there, and print the difference.
        return
    inside_repository = any(os.path.exists(os.path.join(folder, ".git")) for folder in parents)
    committed = not temporary and not inside_repository and first_commit(answers["author"])
    print(next_steps(answers, committed, by_cruft))


def here_and_above(folder: str) -> list:
    folders = [folder]
    while os.path.dirname(folders[-1]) != folders[-1]:
        folders.append(os.path.dirname(folders[-1]))
    return folders


def next_steps(answers: dict, committed: bool, by_cruft: bool) -> str:
    origin = f"https://github.com/{answers['github_owner']}/{answers['github_repo']}"
    publish = f"git remote add origin {origin}.git && git push -u origin main"
    if by_cruft:
        # cruft writes this file after the hook, so the first commit cannot hold it.
        publish = f"git add .cruft.json && git commit -m 'Follow the template' && {publish}"
    return "\n".join(
        (
            f"1. cd {answers['project_slug']} && make sandbox",
            "2. Name your own data, target and quality gate in mlops.yaml, and run it again",
            f"3. {publish}" if committed else f"3. Commit, and push to {origin}",
        )
    )


def first_commit(author: str) -> bool:
    """Commits everything on `main`. False when git is missing, or refuses, which is printed."""
    # Git takes no name that is punctuation alone.
    name = author if any(map(str.isalnum, author)) else "Template"
    nobody = ("-c", f"user.name={name}", "-c", "user.email=template@localhost")
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
