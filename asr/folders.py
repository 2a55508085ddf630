"""The files below a folder, those in linked folders among them."""

from __future__ import annotations

import os
from pathlib import Path


def walk(folder: str | Path, problems: list[str] | None = None) -> list[tuple[Path, list[str]]]:
    """(folder, its file names) of `folder` and every folder below it, linked ones too, sorted; hidden ones left out.

    A folder that can be reached in several ways is visited once, under its own name if that lies below `folder`: links
    that lead back end there. What cannot be followed, a link to nothing or a folder without permission, is described
    in `problems`.
    """
    found: list[tuple[Path, list[str]]] = []
    bad = [] if problems is None else problems
    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        links: list[str] = []
        for parent, folders, files in os.walk(waiting.pop(0), onerror=lambda error: bad.append(_described(error))):
            status = os.stat(parent)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in folders if not name.startswith(".")]
            links += [str(path) for name in folders if (path := Path(parent, name)).is_symlink()]
            names = sorted(name for name in files if not name.startswith("."))
            broken = [name for name in names if not os.path.exists(os.path.join(parent, name))]  # noqa: PTH110, PTH118
            bad.extend(f"{Path(parent, name)}: a link to what is not there" for name in broken)
            found.append((Path(parent), [name for name in names if name not in broken]))
        waiting += sorted(links)
    return sorted(found)


def _described(error: OSError) -> str:
    return f"{error.filename}: cannot be read: {error.strerror or error}"
