"""The `suno-persona` command, and `python -m suno_persona`."""

import sys


def main() -> None:
    """Run the command, or name the extra that it needs."""
    try:
        from suno_persona.cli import main as command

        command()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "jinja2", "rich", "sqlalchemy"):
            raise
        print("suno-persona: the command needs the cli extra: pip install 'suno-persona[cli]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # during the imports, before the command handles it
        sys.exit(130)


if __name__ == "__main__":
    main()
