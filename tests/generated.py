"""Writes what this repo derives from other files of its own: README's table of questions, the hook's package names.

`make generate` runs it; tests compare. Knows nothing of rendering.
"""

import json
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RENDERED = ROOT / "{{cookiecutter.project_slug}}"
README = ROOT / "README.md"
HOOK = ROOT / "hooks" / "pre_gen_project.py"


def questions() -> dict[str, object]:
    """The questions cookiecutter asks, in order, with their defaults (a list is a choice)."""
    raw = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    return {name: default for name, default in raw.items() if not name.startswith("_")}


def locked(lock: Path) -> dict[str, str]:
    """Name and version of every pin in a lock file."""
    pins = re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return dict(pins)


def question_table(defaults: dict[str, str]) -> str:
    """Markdown table of the questions; `defaults` holds the answers of a render nobody typed into."""
    raw = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    rows = ["| question | used for | default |", "|---|---|---|"]
    for name in questions():
        prompt = raw["__prompts__"][name]
        if isinstance(prompt, dict):
            choices = "; ".join(f"`{c}`: {text}" for c, text in prompt.items() if c[0] != "_")
            prompt = f"{prompt['__prompt__']}. {choices}"
        rows.append(f"| `{name}` | {prompt} | `{defaults[name]}` |")
    return "\n".join(rows)


def package_names() -> str:
    """The body of the hook's PACKAGES: every pinned name, wrapped."""
    names = " ".join(sorted(locked(RENDERED / "requirements.lock")))
    return textwrap.fill(
        names, 96, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )


def with_questions(readme: str, defaults: dict[str, str]) -> str:
    """`readme` with its table of questions renewed."""
    marks = r"(<!-- questions: written by `make generate` -->\n).*?(\n<!-- end of questions -->)"
    return re.sub(marks, lambda m: m[1] + question_table(defaults) + m[2], readme, flags=re.DOTALL)


def with_packages(hook: str) -> str:
    """`hook` with its list of packages renewed."""
    marks = r'(PACKAGES = frozenset\(\n    """\n).*?(    """\.split\(\)\n\))'
    return re.sub(marks, lambda m: m[1] + package_names() + "\n" + m[2], hook, flags=re.DOTALL)


def default_answers() -> dict[str, str]:
    """What cookiecutter makes of its own defaults, without reading the user's configuration."""
    from cookiecutter.generate import generate_context
    from cookiecutter.prompt import prompt_for_config

    context = generate_context(context_file=str(ROOT / "cookiecutter.json"))
    return dict(prompt_for_config(context, no_input=True))


if __name__ == "__main__":
    README.write_text(
        with_questions(README.read_text(encoding="utf-8"), default_answers()), encoding="utf-8"
    )
    HOOK.write_text(with_packages(HOOK.read_text(encoding="utf-8")), encoding="utf-8")
