"""``recdistill serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="REC...", help="Exported folders, or NAME=FOLDER. The first answers unless --split."
        ),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0: reachable from other machines.")] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a bearer token that requests must carry.", show_default=False),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Traffic by model, such as old=0.9,new=0.1.", show_default=False)
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Stored teacher lists: recdistill knowledge examples.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder of a report; its pictures are shown on the page.", show_default=False),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one matrix product.")] = 1,
    reload_seconds: Annotated[
        float, typer.Option(min=0, help="How often to look for a new export; 0: never.")
    ] = 2.0,
    max_history: Annotated[int, typer.Option(min=1, help="Items of a history.")] = 1000,
    max_batch: Annotated[int, typer.Option(min=1, help="Histories of a request.")] = 256,
    max_k: Annotated[int, typer.Option(min=1, help="Items of a list.")] = 1000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 1 << 20,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at the same time.")] = 4096,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Answer over HTTP: recdistill serve rec/ --port 8000, then open http://localhost:8000."""
    from recdistill.errors import unknown_name
    from recdistill.extras import extra
    from recdistill.serve.fleet import Fleet, named_folders
    from recdistill.serve.limits import Limits

    if log_level not in (levels := ("debug", "info", "warning", "error")):
        raise unknown_name("log level", log_level, levels)
    token = None if token_file is None else read_token(token_file)
    limits = Limits(history=max_history, batch=max_batch, k=max_k, body=max_body, connections=max_connections)
    with extra("serve"):
        from recdistill.serve.app import create_app, plots_of
    from recdistill.serve.examples import Examples
    from recdistill.serve.process import run

    fleet = Fleet(named_folders(folders), split=split, threads=threads)
    stored = None
    if examples is not None:
        stored = Examples.load(examples, [slot.now.engine.fingerprint for slot in fleet.slots.values()])
    plots = None if report is None else plots_of(report)
    app = create_app(
        fleet, limits=limits, token=token, examples=stored, plots=plots, reload_seconds=reload_seconds
    )
    run(app, host=host, port=port, limits=limits, log_level=log_level)


def read_token(path: Path) -> str:
    """Return the token that a file holds.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds no token of 16 signs or more.
    """
    from recdistill.errors import ConfigError

    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). Allowed: a text file with one token.") from None
    if len(token) < 16 or not token.isascii() or any(sign.isspace() for sign in token):
        raise ConfigError(
            f"the token in {path} has {len(token)} signs. Allowed: 16 or more ASCII signs without spaces: "
            f"python -c 'import secrets; print(secrets.token_urlsafe(32))' > {path}"
        )
    return token
