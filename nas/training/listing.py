"""The files of a folder of images: which are read for which part, and what is left out, with the reason.

    PATH/train/<class>/**  with optional PATH/val/<class>/** and PATH/test/<class>/**
    PATH/<class>/**

Class names are the folder names, Unicode-normalised (NFC) and sorted; images may lie at any depth below them. Parts are
known by `PART_NAMES`, whatever their case. What is hidden is not looked at; every other file is read, or counted with
the reason why not.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from nas.errors import UserError
from nas.preprocessing import endings, is_image
from nas.units import counted

PART_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training"),
        "validation": ("val", "valid", "validation", "dev"),
        "test": ("test", "testing"),
    }
)
"""Names of the folders of a part, in lower case."""

_HEIF = frozenset({".heic", ".heif", ".hif"})


@dataclass
class Facts:
    """Facts of a folder of images once it is read, as plain values.

    read      number of images by ending
    skipped   number of files by ending and reason
    unread    what else was left out, one line each
    notes     what is odd about the images, one line each
    copies    number of images that equal an earlier one, pixel by pixel
    near      pairs of names, of a validation or test image and of a training image that looks almost like it
    mirrored  a class and the class that its mirrored images look like, or None
    white     the value that becomes 255 in images of more than 8 bits, where it is not their format's
    """

    read: Counter[str] = field(default_factory=Counter)
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    copies: int = 0
    near: list[tuple[str, str]] = field(default_factory=list)
    mirrored: tuple[str, str] | None = None
    white: float | None = None

    def left_out(self) -> str:
        """Everything that was not read; empty where nothing was left out."""
        parts = list(self.unread)
        if self.skipped:
            count = self.skipped.total()
            parts.insert(0, f"{counted(count, 'file')} skipped: {self.skipped_line()}")
        return "; ".join(parts)

    def skipped_line(self) -> str:
        """The files that were not read, by ending and reason."""
        return ", ".join(f"{count:,} {ending} ({reason})" for (ending, reason), count in self.skipped.most_common())

    def account(self) -> str:
        """Count what was read, and what was not."""
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in self.read.most_common())
        read = f"{counted(self.read.total(), 'image')} read ({kinds})"
        return f"{read}; {skipped}" if (skipped := self.left_out()) else read


@dataclass(frozen=True)
class Listed:
    """An image file, its name within its part ("class/.../file", with "/" between), and its class's number."""

    file: Path
    name: str
    label: int


def list_folder(path: Path, facts: Facts) -> tuple[tuple[str, ...], dict[str, list[Listed]]]:
    """Find the images of a folder: its classes, and its files by part, ``train`` being all where it has no parts.

    Args:
        path: the folder.
        facts: told what is read and what is not.

    Raises:
        UserError: fewer than two classes, a class without images, a class of another part that is not among those of
            the training part, a name that is not UTF-8.
    """
    parts = _part_folders(path, facts)
    root = parts.get("train", path)
    classes = _class_folders(root)
    if len(classes) < 2:
        found = f"only {next(iter(classes))!r}" if classes else "none"
        raise UserError(f"image folder {root}: at least two class folders are needed, found {found}")
    names = tuple(classes)
    files = {"train": _listed(classes, names, facts)}
    _count_loose(root, facts)
    for label, name in enumerate(names):
        if not any(item.label == label for item in files["train"]):
            raise UserError(f"image folder {classes[name][0]}: no image in it{_instead(classes[name][0])}")
    for part in ("validation", "test"):
        if part in parts and (found_there := _other_part(parts[part], names, facts)):
            files[part] = found_there
    return names, files


def is_utf8(name: str) -> bool:
    """Check that a name can be written as UTF-8: a file system's names are any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _part_folders(path: Path, facts: Facts) -> dict[str, Path]:
    """The folders of a data set that is divided already, by part; empty where `path` holds the class folders."""
    found: dict[str, Path] = {}
    strange = []
    for folder in _folders(path):
        part = next((part for part, names in PART_NAMES.items() if folder.name.casefold() in names), None)
        if part is None:
            strange.append(folder.name)
        elif part in found:
            raise UserError(f"image folder {path}: {found[part].name}/ and {folder.name}/ are both its {part} part")
        else:
            found[part] = folder
    # A class may be called train, too, and hold folders of its own.
    within = len(_folders(found["train"])) if "train" in found else 0
    if not within or (within == 1 and strange):
        return {}
    known = ", ".join(name for names in PART_NAMES.values() for name in names)
    facts.unread += [f"{name}/ is not read, since it is none of {known}" for name in strange]
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(root: Path) -> dict[str, list[Path]]:
    """Class folders by name, sorted; of two Unicode forms of one name both."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(root):
        if not is_utf8(folder.name):
            raise UserError(f"image folder {folder}: the name of this class is not UTF-8; rename the folder")
        found.setdefault(unicodedata.normalize("NFC", folder.name), []).append(folder)
    return dict(sorted(found.items()))


def _listed(folders: Mapping[str, list[Path]], classes: tuple[str, ...], facts: Facts) -> list[Listed]:
    """The images of class folders; every file is counted."""
    found = []
    for label in folders:
        for folder in folders[label]:
            for file in sorted(_files(folder)):
                ending, reason = _ending(file), _unread(file)
                if reason is not None:
                    facts.skipped[ending, reason] += 1
                    continue
                facts.read[ending] += 1
                name = unicodedata.normalize("NFC", file.relative_to(folder).as_posix())
                found.append(Listed(file, f"{label}/{name}", classes.index(label)))
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder that is not hidden, links followed; no folder twice."""
    seen: set[tuple[int, int]] = set()
    left = [folder]
    while left:
        current = left.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in current.iterdir():
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                left.append(entry)
            else:
                yield entry


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without ending"


def _unread(file: Path) -> str | None:
    """The reason why a file is not read; None for an image."""
    ending = file.suffix.lower()
    if not file.exists():
        return "dangling link"
    if not file.is_file():
        return "no regular file"
    if ending in endings() or is_image(file):
        return None
    return "pip install pillow-heif to read them" if ending in _HEIF else "no image that Pillow reads"


def _count_loose(root: Path, facts: Facts) -> None:
    for file in root.iterdir():
        if file.suffix.lower() in endings() and file.is_file() and not file.name.startswith("."):
            facts.skipped[_ending(file), "outside the class folders"] += 1


def _instead(folder: Path) -> str:
    """Describe a folder without images, to be put behind an error."""
    facts = Facts()
    _listed({"": [folder]}, ("",), facts)
    return f", but {facts.skipped_line()}" if facts.skipped else "; fill it or remove it"


def _other_part(root: Path, classes: tuple[str, ...], facts: Facts) -> list[Listed]:
    """The validation or test images; none where they have no labels, which is noted."""
    folders = _class_folders(root)
    unknown = [name for name in folders if name not in classes]
    if unknown:
        raise UserError(
            f"image folder {root}: class {unknown[0]!r} is not among the training classes {', '.join(classes)}"
        )
    files = _listed(folders, classes, facts)
    if files:
        _count_loose(root, facts)
        return files
    loose = sum(1 for file in root.iterdir() if file.is_file() and not file.name.startswith("."))
    if not loose:
        raise UserError(f"image folder {root}: no image in it; remove the folder or fill it")
    facts.unread.append(f"{root.name}/ is not used: it holds {counted(loose, 'file')} without class folders")
    return []
