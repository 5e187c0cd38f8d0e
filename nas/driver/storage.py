"""Storage of a search's study: a journal file in the run's folder, or a database."""

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from nas.driver.journal import RunJournal
from nas.errors import UserError, first_line

STUDY_FILE = "study.journal"


def open_storage(
    folder: Path, url: str | None, *, journal: RunJournal | None = None, create: bool = True
) -> BaseStorage:
    """Open the journal file in the run's folder (`journal`, if its writer has opened it), or the database of a URL.

    A database is made, and tables in it, with `create` alone: a folder of somebody else's may name any file.

    Raises:
        UserError: the database cannot be reached, or the file holds what is no study.
    """
    if url is None:
        try:
            return JournalStorage(journal or RunJournal(folder / STUDY_FILE, writer=False))
        except UserError:
            raise
        except Exception as error:  # Optuna plays back what a journal holds without looking at it
            raise UserError(f"{folder / STUDY_FILE}: damaged: {type(error).__name__}: {error}") from error
    try:
        address = make_url(url)
        shown = address.render_as_string(hide_password=True)
        if not create and address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
            raise UserError(f"{folder}: its study should be in {shown}; there is no such file")
        return RDBStorage(url, skip_table_creation=not create)
    except UserError:
        raise
    except ArgumentError as error:
        raise UserError(f"--storage {url!r}: not a database's URL, such as sqlite:///study.db") from error
    except ImportError as error:
        raise UserError(f"--storage {shown}: its driver is not installed: {error.__cause__ or error}") from error
    except Exception as error:  # every database driver has errors of its own
        raise UserError(f"--storage {shown}: {first_line(error)}") from error
