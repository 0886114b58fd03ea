"""The sources that get their token on this host: from a program, a file, or a function of the operator's own."""

from config import sources as sections
from proxy.token_sources.secrets import revealed
from proxy.tokens.sources.base import Source
from proxy.tokens.sources.command import CommandSource
from proxy.tokens.sources.file import FileSource
from proxy.tokens.sources.program import Program
from proxy.tokens.sources.python import PythonSource
from proxy.tokens.sources.reply import ReplyShape


def build_command(section: sections.CommandSource) -> Source:
    shape = None
    if section.token_pointer is not None:
        shape = ReplyShape(
            token=section.token_pointer,
            expires_in=section.expires_in_pointer,
            expires_at=section.expires_at_pointer,
            default_lifetime_s=section.default_lifetime_s,
        )
    return CommandSource(
        Program(section.argv),
        read_env=lambda: revealed(section.env),
        shape=shape,
        default_lifetime_s=section.default_lifetime_s,
    )


def build_file(section: sections.FileSource) -> Source:
    return FileSource(section.path)


def build_python(section: sections.PythonSource) -> Source:
    return PythonSource(
        section.function,
        read_arguments=lambda: revealed(section.arguments),
        default_lifetime_s=section.default_lifetime_s,
    )
