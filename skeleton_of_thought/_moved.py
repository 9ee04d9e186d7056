"""Old names of modules that moved in 0.2.0, for pickles made with 0.1 and for imports."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["keep_old_names"]


class _Moved(ModuleType):
    """A module under its old name, which imports the new one when a name is read from it."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, f"Moved to `{new}` in 0.2.0.")
        self.__spec__ = ModuleSpec(old, None, origin=new)
        self._new = new

    def __getattr__(self, name: str) -> object:
        # Tools ask all modules for special names; that imports nothing. `import *` asks for `__all__`.
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(self._new), name)


def keep_old_names(package: str, moved: Mapping[str, str]) -> None:
    """Makes modules that moved importable by their old names; imports none of them.

    Args:
        package: The package of the modules.
        moved: New names by old ones, both within the package.
    """
    for old, new in moved.items():
        name = f"{package}.{old}"
        module = sys.modules.setdefault(name, _Moved(name, f"{package}.{new}"))
        if "." not in old:
            setattr(sys.modules[package], old, module)
