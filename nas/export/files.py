"""Writing what is shipped, and naming what is missing."""

from pathlib import Path

from nas.errors import UserError
from nas.files import write_atomic


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, its folder too.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def require(what: str, *modules: str) -> None:
    """Raise UserError naming the extra unless these modules are installed."""
    for module in modules:
        try:
            __import__(module)
        except ImportError:
            raise UserError(f"{what} needs {module}, which is not installed: pip install 'nas[export]'") from None
