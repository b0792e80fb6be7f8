"""Reading and writing files so that nothing is ever half written, and every failure is one clear sentence.

A write goes to a temporary neighbour which then takes the target's name, so that a full disk or an
interruption leaves the file from before as it was.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

SPEC_SUFFIXES = (".nl", ".yaml", ".yml")
LARGEST_SPEC = 16 * 1024 * 1024  # bytes; a spec is written by people


class FileProblem(Exception):
    """A file that cannot be read or written: `message` states the fact, `help` says how to mend it."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help


def reason(error: OSError) -> str:
    """The cause of an `OSError` in a few words.

    >>> reason(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    """
    known = {
        errno.ENOENT: "no such file or folder",
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EISDIR: "it is a folder",
        errno.ENOTDIR: "a part of the path is no folder",
        errno.ENAMETOOLONG: "the name is too long",
        errno.ELOOP: "its symbolic links form a circle",
    }
    return known.get(error.errno or 0, (error.strerror or str(error)).lower())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 with its line ends as they are; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace or make the file `path`, whole or not at all.

    The folder must exist.  A symbolic link stays a link, and a file keeps its permissions.
    Raises `FileProblem` when that cannot be done; the file from before is then unchanged.
    """
    target = Path(path)
    if target.is_symlink() or target.exists():
        target = Path(os.path.realpath(target))  # `resolve` raises RuntimeError where links form a circle
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder")
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # a device or pipe has no neighbour to rename
            return
        _replace(target, data)
    except OSError as error:
        kept = "the file from before is unchanged" if target.is_file() else "nothing was written"
        raise FileProblem(f"cannot write `{path}`: {reason(error)}", _write_help(error, kept)) from error


def _replace(target: Path, data: bytes) -> None:
    import secrets  # slow to load, and a check writes nothing

    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_help(error: OSError, kept: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{kept}; free some room and run the command again"
    if error.errno == errno.ENOENT:
        return f"{kept}; make the folder first"
    return kept


def read_bytes(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The bytes of a file.

    Raises `FileProblem` where it is missing (with near names), unreadable or over `limit` bytes.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise FileProblem(f"`{path}` is a folder, and a file is needed", _files_inside(file))
        if limit is not None and file.is_file() and file.stat().st_size > limit:
            size = file.stat().st_size / 2**20
            raise FileProblem(f"`{path}` holds {size:.0f} MiB, and a spec may hold {limit // 2**20} MiB")
        return file.read_bytes()
    except FileNotFoundError as error:
        if file.is_symlink():
            fact = f"`{path}` is a link to `{os.readlink(file)}`, which does not exist"  # noqa: PTH115
            raise FileProblem(fact, "point the link at a file, or name the file itself") from error
        raise FileProblem(f"`{path}` does not exist", _near(file)) from error
    except OSError as error:
        raise FileProblem(f"cannot read `{path}`: {reason(error)}") from error


def decode(name: str, data: bytes) -> str:
    """Text from UTF-8, line ends and byte order mark as they are; raises `FileProblem` for anything else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileProblem(f"`{name}` is UTF-16 text, and a spec is UTF-8", "save it again as UTF-8")
    if b"\0" in data[:8192]:
        place = data.index(b"\0")
        raise FileProblem(f"`{name}` is a binary file: byte {place} is zero", "a spec is .nl or YAML text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        value = data[error.start]
        fact = f"`{name}` is not UTF-8: byte 0x{value:02x} in line {line}, at byte {column} of the line"
        raise FileProblem(fact, "save it again as UTF-8") from error


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a spec file; raises `FileProblem` where it is missing, too large, binary or not UTF-8."""
    return decode(str(path), read_bytes(path, limit=LARGEST_SPEC))


def read_import(spec: str | os.PathLike[str], name: str) -> tuple[str, str]:
    """The path and text of a file that the spec at `spec` imports by its path from the spec's folder.

    Raises `OSError` or `UnicodeError`; a link that leads out of the spec's folder is an `OSError`.
    """
    folder = Path(spec).parent
    file = folder / name
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.EACCES, "it leads outside the folder of the spec", str(file))
    return str(file), file.read_bytes().decode("utf-8")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it; raises `FileProblem` where that is impossible."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileProblem(f"`{path}` is a file, and a folder is needed") from error
    except OSError as error:
        raise FileProblem(f"cannot make the folder `{path}`: {reason(error)}") from error
    return folder


def _near(file: Path) -> str | None:
    """Help for a missing file: near names beside it, else what is wrong with its folder."""
    folder = file.parent
    if not folder.is_dir():
        return f"the folder `{folder}` does not exist either"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return None
    from difflib import get_close_matches

    twins = [n for n in names if Path(n).stem == file.stem and Path(n).suffix in SPEC_SUFFIXES]
    near = twins or get_close_matches(file.name, names, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(f'`{folder / name}`' for name in near)}?"
    return _files_inside(folder)


def _files_inside(folder: Path) -> str | None:
    try:
        specs = sorted(entry.name for entry in folder.iterdir() if entry.suffix in SPEC_SUFFIXES)
    except OSError:
        return None
    if not specs:
        return f"`{folder}` holds no .nl or YAML file"
    listed = ", ".join(f"`{name}`" for name in specs[:5])
    return f"`{folder}` holds {listed}{' and more' if len(specs) > 5 else ''}"
