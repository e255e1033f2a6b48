"""The `suno-persona` command, and `python -m suno_persona`."""

import sys


def main() -> None:
    """Run the command, or say which extra it needs."""
    try:
        from suno_persona.cli import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich", "sqlalchemy"):
            raise
        print("suno-persona: the command needs the cli extra: pip install 'suno-persona[cli]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before the command was there to end well
        sys.exit(130)


if __name__ == "__main__":
    main()
