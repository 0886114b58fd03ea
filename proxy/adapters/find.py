"""An adapter by its name in the config: one that is here, or a class of the operator's own."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from proxy.adapters.base import Adapter

BUILT_IN = {"dashscope": "proxy.adapters.dashscope:DashScope", "plain_sse": "proxy.adapters.plain_sse:PlainSse"}


class AdapterError(Exception):
    """No adapter by that name; the text says why, and quotes nothing."""


def find_adapter(name: str, folder: Path) -> Adapter:
    """The adapter that `name` names: BUILT_IN, or `package.module:Class`. Raises AdapterError.

    A module is found where Python finds any, and in `folder`: beside the config file.
    """
    module_name, _, class_name = BUILT_IN.get(name, name).partition(":")
    if name not in BUILT_IN and str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:  # SystemExit too: whatever the module does when it is imported
        missing = f" {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        raise AdapterError(f"cannot be imported: {type(error).__name__}{missing}") from None
    kind: object = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Adapter)):
        raise AdapterError("must name a subclass of proxy.adapters.Adapter")
    try:
        return kind()
    except BaseException as error:
        raise AdapterError(f"cannot be made without arguments: {type(error).__name__}") from None


def import_anew(adapters: Mapping[str, tuple[str, Path]]) -> tuple[str, ...]:
    """A line for each that cannot be used, by its path in the config.

    For gunicorn's master and the command line: modules are imported anew, so that a reload brings an edited file, and
    the workers have what was found good here. After a fault the modules from before are back.
    """
    modules = {name.partition(":")[0] for name, _ in adapters.values() if ":" in name}
    before = {name: sys.modules.pop(name) for name in modules if name in sys.modules and not name.startswith("proxy.")}
    importlib.invalidate_caches()
    faults = []
    for path, (name, folder) in adapters.items():
        try:
            find_adapter(name, folder)
        except AdapterError as error:
            faults.append(f"{path}: {error}")
    if faults:
        sys.modules.update(before)
    return tuple(faults)
