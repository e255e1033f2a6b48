"""Everything that is checked.

`nox` runs what a change needs, on the Python at hand, in a few minutes: lint, types and the fast tests. `nox -t ci`
runs the rest: the wheel, every test on the oldest Python, the fast ones on the others, coverage, the docs in Chromium
and the demo.
`lowest`, `soak`, `simulate`, `mutants` and `bench` run when they are named. Nothing is installed outside the
environments.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"  # uv installs in seconds
nox.options.download_python = "never"  # test each Python that is there
os.environ.setdefault("UV_SYSTEM_CERTS", "1")  # trust what the machine trusts, as pip does
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "fast"]
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
GITHUB = {  # what GitHub reads, by the schema that it has to keep
    "dependabot": "dependabot.yml",
    "github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "github-workflows": "workflows/*.yml",
}

COMPILED = {"UV_COMPILE_BYTECODE": "1"}  # once, and not in each process that a test starts
FAST = ("-m", "not slow")
CODE = ("--ignore=tests/docs",)  # which the session `docs` runs
FAST_PROFILE = {"HYPOTHESIS_PROFILE": "fast"}

if pyenv := shutil.which("pyenv"):  # whose shims otherwise hide every Python but one
    found = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=True).stdout
    os.environ["PYENV_VERSION"] = ":".join(reversed(found.split()))


def groups(*names: str) -> list[str]:
    """The packages of the project's dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """Check form and style, also of what GitHub and Read the Docs read."""
    session.install(*groups("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("codespell", "suno_persona", "tests", "docs", "README.md")
    session.run("zizmor", "--offline", "--quiet", ".github")
    for schema, files in GITHUB.items():
        session.run("check-jsonschema", f"--builtin-schema=vendor.{schema}", *map(str, Path(".github").glob(files)))
    session.run("check-jsonschema", "--builtin-schema=vendor.readthedocs", ".readthedocs.yaml")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: inside strictly, outside completely."""
    install_all(session)
    session.run("mypy")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "suno_persona")


@nox.session(tags=["ci"])
def pyright(session: nox.Session) -> None:
    """Check types as editors do."""
    install_all(session)
    session.run("pyright")


def install_all(session: nox.Session) -> None:
    """Install the package with whatever anything imports."""
    session.install(".[cli,distributed,mcp,testing]", "nox", *groups("bench", "docs", "tests", "types"))


@nox.session
def fast(session: nox.Session) -> None:
    """Run the tests that take no more than a moment each, on the Python at hand."""
    session.install("-e", ".[cli,distributed,mcp,testing]", *groups("tests"), env=COMPILED)
    pytest(session, ["python"], *FAST, env=FAST_PROFILE)


@nox.session(tags=["ci"])
def package(session: nox.Session) -> None:
    """Build the sdist, and the wheel from it, into dist/; check them. What is in them, the tests check."""
    session.install(*groups("package"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.run("check-wheel-contents", "--package", "suno_persona", "dist")


def install_wheel(session: nox.Session, *requirements: str) -> None:
    """Install the wheel in dist/ with its extras, and what the tests need."""
    (wheel,) = Path("dist").glob("*.whl")
    session.install(f"{wheel}[cli,distributed,mcp,testing]", *groups("tests"), *requirements, env=COMPILED)
    session.install("--force-reinstall", "--no-deps", str(wheel), env=COMPILED)  # pip keeps what has the same version


def pytest(session: nox.Session, run: Sequence[str], *options: str, env: Mapping[str, str] = {}) -> None:
    """Run the tests, two for each core: many of them wait for processes.

    No process puts the checkout on its path, so that they import what is installed.
    """
    workers = str(2 * (os.cpu_count() or 1))
    arguments = session.posargs or options
    session.run(*run, "-m", "pytest", "-n", workers, "--dist=worksteal", *arguments, env={"PYTHONSAFEPATH": "1", **env})


@nox.session(python=PYTHONS, requires=["package"], tags=["ci"])
def tests(session: nox.Session) -> None:
    """Run the tests against the wheel: all on the oldest Python, and those that are not slow on the others.

    On the oldest, measure what they cover, without asyncio's debug mode: the two together take several times as long.
    """
    install_wheel(session)
    if session.python != PYTHONS[0]:
        pytest(session, ["python"], *CODE, *FAST, env=FAST_PROFILE)
    elif session.posargs:  # a part of the tests covers a part
        pytest(session, ["python"])
    else:
        pytest(session, ["coverage", "run"], *CODE, "-o", "asyncio_debug=false")
        session.notify("coverage")


@nox.session(python=PYTHONS[0], requires=["package"])
def lowest(session: nox.Session) -> None:
    """Run the tests against the wheel with the lowest version of each dependency that pyproject.toml allows."""
    project = PROJECT["project"]
    needed = chain(project["dependencies"], *project["optional-dependencies"].values())
    install_wheel(session, *(requirement.replace(">=", "==") for requirement in needed if ">=" in requirement))
    pytest(session, ["python"])


@nox.session
def soak(session: nox.Session) -> None:
    """Send 20,000 calls to a service that breaks, cancel some, and account for every persona."""
    session.install(".", *groups("tests"))
    session.run("python", "tests/soak.py", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Check a million histories of a journal, its batches and its workers, or as many as asked for; SEED shows one."""
    session.install(".[distributed]", *groups("tests"))
    session.run("python", "-m", "simulation", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Break each rule that decides about money by a small change, and see that a test fails; takes minutes."""
    session.install(".[cli,distributed,testing]", *groups("tests"))
    session.run("python", "tests/mutants.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Count the instructions of a call beside the alternatives, and write docs/benchmarks.md; needs valgrind.

    With names of clients, only print what a call costs these.
    """
    if not shutil.which("valgrind"):
        session.error("valgrind must be installed, which counts the instructions: see your system's packages")
    session.install(".[distributed]", *groups("bench", "tests"))
    session.run("python", f"tests/benchmarks/{'instructions' if session.posargs else 'report'}.py", *session.posargs)


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """Build the docs, look at every page in Chromium, and run every example; a dead name or link fails."""
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        session.error("Chromium must be installed, in which the pages are looked at: see your system's packages")
    session.install(".[cli,distributed,mcp,testing]", *groups("docs", "recipes", "tests"))
    shutil.rmtree("docs/_build", ignore_errors=True)  # what is built already would not be checked again
    session.run("sphinx-build", "-q", "-n", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("pytest", "-q", "--noconftest", "tests/docs/built_docs.py", *session.posargs)
    pytest(session, ["python"], "-q", "tests/docs")


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the tests' processes covered; less than all of it fails."""
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(tags=["ci"])
def demo(session: nox.Session) -> None:
    """Run the demo as a user would."""
    session.install(".[cli]")
    session.run("suno-persona", "demo")
