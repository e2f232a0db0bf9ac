"""`python -m phases`: from here on no library is a file of the current directory.

And the runner is its sources: the plan lock has their digest, and says nothing of compiled files.
In a locale without UTF-8 the program starts itself again in Python's UTF-8 mode.

What ran before the first line stays as Python found it: `phases/__init__.py` and this file, which
may come from `__pycache__`, and what `python -m` itself imports (runpy, pkgutil and theirs), which
may come from the current directory. `python -P -m phases` and the script `phases` leave the current
directory out from the start.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # `python -m` put the current directory there; only then may more be imported

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType


class _SourceLoader(SourceFileLoader):
    """Compiles a module from its source; reads and writes no bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        """Return the compiled source."""
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _SourceFinder:
    """Finds the runner's modules as `.py` files only, whatever compiled file is beside them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module of the runner is; None for a module of anything else."""
        if not name.startswith("phases."):
            return None
        for folder in path or ():
            spec = FileFinder(folder, (_SourceLoader, [".py"])).find_spec(name)
            if spec is not None and spec.loader is not None:
                return spec
        message = f"the runner has no source file of {name}"
        raise ModuleNotFoundError(message, name=name)


sys.meta_path.insert(0, _SourceFinder())


_ENCODING = "phases_encoding"
"""Option `-X` by which the program tells itself which encoding its output had."""


def _restart_in_utf8() -> None:
    """Start the program again in UTF-8 mode where Python would name files by the locale.

    git names files in UTF-8 or in any bytes; in another encoding Python would look for others.
    """
    if sys.getfilesystemencoding() == "utf-8" or _ENCODING in sys._xoptions:
        return
    output = sys.stderr or sys.stdout
    encoding = output.encoding if output else "utf-8"
    options = ["-X", "utf8", "-X", f"{_ENCODING}={encoding}"]
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, *options, *sys.orig_argv[1:]])


def _keep_terminal_encoding() -> None:
    """Let output have the terminal's encoding, and escape what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = sys._xoptions.get(_ENCODING, stream.encoding)
            stream.reconfigure(encoding=str(encoding), errors="backslashreplace")


def main() -> None:
    """Run a command and exit with its code."""
    _restart_in_utf8()
    _keep_terminal_encoding()
    from phases.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
