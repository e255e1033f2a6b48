"""Everything that is checked. `nox` alone runs it all but the soak; `nox -s tests` and so on run a part."""

import os
import shutil
import subprocess

import nox

nox.needs_version = ">=2025.2.9"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs", "demo"]  # and `coverage`, which the tests notify
nox.options.error_on_missing_interpreters = False  # test each Python that is there

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

if pyenv := shutil.which("pyenv"):  # whose shims otherwise hide every Python but one
    found = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=True).stdout
    os.environ["PYENV_VERSION"] = ":".join(reversed(found.split()))


def groups(*names: str) -> list[str]:
    """The packages of the project's dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """Check form and style."""
    session.install(*groups("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("codespell", "suno_persona", "tests", "docs", "README.md")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: inside strictly, outside completely."""
    session.install(".[cli,distributed,testing]", "nox", *groups("bench", "docs", "tests", "types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "suno_persona")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests against the installed package; on the oldest Python, measure what they cover."""
    session.install(".[cli,distributed,testing]", *groups("tests"))
    measured = session.python == PYTHONS[0] and not session.posargs  # a part of the tests covers a part
    run = ["coverage", "run"] if measured else ["python"]
    session.run(*run, "-m", "pytest", "-n", "auto", *session.posargs)
    if measured:
        session.notify("coverage")


@nox.session
def soak(session: nox.Session) -> None:
    """Send 20,000 calls to a service that breaks, cancel some, and account for every persona."""
    session.install(".", *groups("tests"))
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what a call costs beside the alternatives, and write docs/benchmarks.md and its plot."""
    session.install(".", *groups("bench"))
    session.run("python", "tests/benchmarks/report.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the docs, and look at every page in Chromium; a name or a link that leads nowhere fails."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        if not shutil.which("apt-get") or os.geteuid() != 0:
            session.error("the docs are looked at in Chromium, which is not there: install your system's package of it")
        session.run("apt-get", "update", "-q", external=True)
        session.run("apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium", external=True)
    session.install(".[cli,distributed,testing]", *groups("docs"))
    shutil.rmtree("docs/_build", ignore_errors=True)  # what is built already would not be checked again
    session.run("sphinx-build", "-q", "-n", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", "-q", "--noconftest", "tests/built_docs.py", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the tests' processes covered; less than all of it fails."""
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def demo(session: nox.Session) -> None:
    """Run the demo as a user would."""
    session.install(".[cli]")
    session.run("suno-persona", "demo")
