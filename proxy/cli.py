"""`python -m proxy`: what an operator asks for at a shell. Every command reads the same config as the server."""

import secrets
import sys
from hashlib import sha256

import click
from pydantic import TypeAdapter, ValidationError

from config import ConfigError, Settings, load
from config.values import Label
from proxy.doctor import Report, examine, print_token_states, take_over_log
from proxy.upstream_clients import adapter_faults

KEY_BYTES = 32


@click.group()
@click.option("--config", "path", envvar="LLM_PROXY_CONFIG", default="config.yaml", help="The config file.")
@click.pass_context
def main(context: click.Context, path: str) -> None:
    """A proxy that puts a token that is never stale on every upstream request."""
    context.obj = path


@main.command()
@click.pass_obj
def check(path: str) -> None:
    """Validate the config: all faults at once, each with its path."""
    settings = _load(path)
    click.echo(
        f"{path}: ok ({len(settings.upstreams)} upstreams, {len(settings.token_sources)} token sources, "
        f"{len(settings.client_keys)} client keys)"
    )


@main.command("new-key")
@click.option("--label", required=True, help="The name of the caller that the key is for.")
def new_key(label: str) -> None:
    """Make a client key: printed once, with the lines for client_keys in config.yaml."""
    try:
        TypeAdapter(Label).validate_python(label)
    except ValidationError as error:
        raise click.BadParameter(error.errors()[0]["msg"], param_hint="--label") from None
    key = "sk-" + secrets.token_urlsafe(KEY_BYTES)
    click.echo(f"Key for {label}, shown this once:\n\n  {key}\n\nUnder client_keys in config.yaml:\n")
    # In quotes: YAML would read a label such as 42 or true as something else.
    click.echo(f'  - {{label: "{label}", sha256: "{sha256(key.encode()).hexdigest()}"}}')


@main.command()
@click.pass_obj
def token(path: str) -> None:
    """Show how each source's token in the shared store stands. Fetches nothing and never shows a token."""
    settings = _load(path)
    take_over_log(lambda text: click.echo(text, err=True))
    sys.exit(0 if print_token_states(settings, click.echo) else 1)


@main.command()
@click.option("--model", help="The chat model to try, as callers name it.")
@click.option("--embedding-model", help="The embedding model to try, as callers name it.")
@click.pass_obj
def doctor(path: str, model: str | None, embedding_model: str | None) -> None:
    """Fetch a token from each source and try each upstream with it, step by step; say why a step fails."""
    settings = _load(path)
    report = Report(click.echo)
    take_over_log(lambda text: report.warn("log", text))
    examine(settings, report, model=model, embedding_model=embedding_model)
    sys.exit(0 if report.is_good else 1)


def _load(path: str) -> Settings:
    try:
        settings = load(path)
        if faults := adapter_faults(settings.upstreams):
            raise ConfigError(faults)
        return settings
    except ConfigError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        sys.exit(1)
