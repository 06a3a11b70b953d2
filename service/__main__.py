"""The `cutaway` command. Each subcommand imports its modules when it runs, so that all start fast."""

import os
import signal
import sys
from pathlib import Path

import click

HOST = click.option("--host", envvar="HOST", default="127.0.0.1", show_default=True, help="Address to listen on.")
PORT = click.option(
    "--port", envvar="PORT", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cutaway")
def main() -> None:
    """See the inside of a GPT: every intermediate value, and the place of every matrix in a 3D picture."""


@main.command()
@HOST
@PORT
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Workers; each has a process for small jobs and one for large jobs.",
)
@click.option(
    "--cache-memory",
    envvar="CACHE_MEMORY",
    default="2gb",
    show_default=True,
    help="Size of the embedded cache, in Redis's units (500mb, 2gb).",
)
@click.option(
    "--data-dir",
    envvar="DATA_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the embedded Redis servers' data.  [default: ~/.local/share/cutaway/PORT]",
)
@click.option("--fresh", is_flag=True, help="Forget the requests and results of earlier runs.")
@click.option("--die-with-parent", is_flag=True, help="Stop when the process that started this one dies.")
def up(
    host: str, port: int, workers: int, cache_memory: str, data_dir: Path | None, fresh: bool, die_with_parent: bool
) -> None:
    """Run everything: Redis (unless QUEUE_URL and CACHE_URL are set), the workers and the API.

    Requests that were accepted are finished after a restart, and results are kept.
    """
    from service.up import command
    from service.up.redis_server import RedisServerError
    from worker import process

    if die_with_parent:
        process.die_with_parent(signal.SIGTERM)
    try:
        sys.exit(command.up(host, port, workers, cache_memory, data_dir, fresh))
    except (command.CannotStart, RedisServerError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@HOST
@PORT
@click.option(
    "--processes",
    envvar="WEB_CONCURRENCY",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Server processes.",
)
@click.option(
    "--threads", envvar="THREADS", type=click.IntRange(1), default=16, show_default=True, help="Threads in each."
)
def api(host: str, port: int, processes: int, threads: int) -> None:
    """Run only the API."""
    from worker import process

    with process.loading():
        from service.server.gunicorn_app import Server

    os.environ["HOST"] = host  # the app's settings are read from the environment
    try:
        server = Server(host, port, processes, threads)
    except ValueError as error:  # an invalid setting
        raise click.ClickException(str(error)) from None
    server.run()


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run only a worker: a process for small jobs and one for large jobs, or just one (cutaway worker small)."""
    os.execv(sys.executable, [sys.executable, "-m", "worker", *arguments])  # noqa: S606  # nosec B606


@main.command()
@click.argument("repo")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit.")
@click.option("--name", help="Name of the folder.  [default: the last part of REPO]")
def fetch(repo: str, revision: str, name: str | None) -> None:
    """Download the checkpoint REPO from a Hugging Face hub into MODELS_DIR.

    HF_ENDPOINT is the URL of another hub, HF_TOKEN your access token. An interrupted download resumes.
    """
    from service.commands import fetch, hub
    from worker.settings import Settings

    try:
        folder = Path(Settings.from_environment().models_dir)
        summary = fetch.fetch(
            repo,
            folder,
            revision=revision,
            name=name,
            endpoint=os.environ.get("HF_ENDPOINT") or hub.HUB,
            token=os.environ.get("HF_TOKEN", "").strip(),
        )
    except fetch.Stopped as stopped:
        click.echo(stopped, err=True)
        sys.exit(130)
    except (hub.FetchError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(summary)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="URL of the service.")
@click.option("--layouts", type=click.Choice(["glb", "safetensors"]), help="Also download the layout of each trace.")
@click.option("--api-key", envvar="CUTAWAY_API_KEY", help="Your API key.  [env: CUTAWAY_API_KEY]")
def batch(file: Path, out: Path, url: str, layouts: str | None, api_key: str | None) -> None:
    """Compute the requests in FILE, one JSON object per line, and download the traces as safetensors files.

    index.jsonl in the folder has the status of each request. An interrupted batch resumes.
    """
    from cutaway import remote
    from service.commands import collect

    try:
        summary, failed = collect.collect(file, out, url, layouts, api_key)
    except collect.Stopped as stopped:
        click.echo(stopped, err=True)
        sys.exit(130)
    except (collect.CollectError, remote.RemoteError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(summary)
    for line in failed:
        click.echo(line, err=True)
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
def openapi(path: Path | None) -> None:
    """Write the OpenAPI document as YAML to PATH, or to standard output."""
    from service.app import openapi_yaml

    text = openapi_yaml()
    if path is None:
        click.echo(text, nl=False)
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="cutaway")
