"""The project's commands, each as CI runs it: ``nox -s lint tests proofs docs``."""

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]

PROOFS = ("-m", "proof", "-n", "2", "--dist", "worksteal")


def install(session: nox.Session) -> None:
    """Installs what the lock says, and the package from this checkout."""
    session.install("--require-hashes", "-r", "requirements-dev.lock")
    session.install("--no-deps", "-e", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and the workflows of CI."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("zizmor", "--offline", ".github/workflows")


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def tests(session: nox.Session) -> None:
    """The quick suite."""
    install(session)
    session.run("pytest", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def proofs(session: nox.Session) -> None:
    """The long proofs: durability, random worlds of the limiter, seeded bugs."""
    install(session)
    session.run("pytest", "-q", *PROOFS, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The quick suite with its coverage."""
    install(session)
    session.run(
        "pytest",
        "-q",
        "-n",
        "auto",
        "--dist",
        "worksteal",
        "--cov",
        "--cov-report",
        "term-missing:skip-covered",
    )


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    install(session)
    session.run("python", "-m", "sphinx", "-W", "-b", "html", "docs", "docs/_build/html")
