"""Removes folders without files, commits the pristine render, which later updates are merged
against, and says what comes next.

Runs in cookiecutter's own interpreter: standard library only, Python 3.9 or newer. Acts on nothing
but the new folder.
"""

import os

# The hook before this one admits only letters, digits, '-', '_' and '.' in these names.
FOLDER = "{{ cookiecutter.project_slug }}"
ORIGIN = "https://github.com/{{ cookiecutter.github_owner }}/{{ cookiecutter.github_repo }}"
BY_CRUFT = "{{ '_commit' in cookiecutter }}" == "True"
# Cookiecutter leaves files out, but makes their folder all the same.
WORKFLOWS = os.path.join(".github", "workflows")

GIT = ("git", "git.exe", "git.cmd")
MESSAGE = b"Render the template\n.\n"


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
    print(next_steps(not temporary and not inside_repository and first_commit()))


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
    return "\n".join(
        (
            f"1. cd {FOLDER} && make sandbox",
            "2. Name your own data, target and quality gate in mlops.yaml, and run it again",
            f"3. {publish}" if committed else f"3. Commit, and push to {ORIGIN}",
        )
    )


if __name__ == "__main__":
    main()
