"""How a folder is made. The one home of "it cannot be"."""

from __future__ import annotations

from pathlib import Path

from common.errors import PlumblineError


def make_folder(folder: Path) -> Path:
    """The folder, made with those above it where it is not there.

    Raises:
        PlumblineError: no folder can be there.
    """
    # A mkdir of all parents fails like this only where no folder can be: below /proc, or in the place of a file.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise PlumblineError(
            "A folder could not be made.",
            where=str(folder),
            why=str(error.strerror),
            do="Name another place: another state folder (PLUMBLINE__HOME=/path), or another path where one was given.",
        ) from error
    return folder
