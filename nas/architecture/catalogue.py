"""The spaces and published networks that come with the package, by name, and the user's own files, by path."""

from pathlib import Path

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.errors import UserError
from nas.files import parse_yaml, read_yaml, shipped_folder

ROOT = shipped_folder("search_spaces")

PAPERS = ("Han and Kwon", "Hoang and Jo", "Kuo", "lecture", "EfficientNet-Lite")
"""The papers, as sources and printed tables name them."""


def space_names() -> list[str]:
    """List the shipped spaces."""
    return _names(ROOT)


def network_names() -> list[str]:
    """List the published networks."""
    return _names(ROOT / "published")


def check_classes(num_classes: int) -> None:
    """Check the number of outputs that a network is asked for.

    Raises:
        UserError: there is none.
    """
    if num_classes < 1:
        raise UserError(f"num-classes {num_classes}: at least 1 is needed")


def load(reference: str | Path | Architecture) -> Architecture:
    """Load the architecture that a published network's name or a YAML file's path refers to.

    A name without its resolution (``mobilenetv1-0.5``) means the network at 224 pixels.

    Raises:
        UserError: no such name or file, or the document is not valid.
    """
    if isinstance(reference, Architecture):
        return reference
    document, where = _document(reference, "network", ROOT / "published", network_names())
    return Architecture.from_dict(document, where)


def load_space(reference: str | Path | Space) -> Space:
    """Load the space that a shipped space's name or a YAML file's path refers to.

    Raises:
        UserError: no such name or file, or the document is not valid.
    """
    if isinstance(reference, Space):
        return reference
    document, where = _document(reference, "space", ROOT, space_names())
    return Space(document, where)


def published() -> list[Architecture]:
    """Load all published networks, by name."""
    return [load(name) for name in network_names()]


def by_paper() -> dict[str, list[Architecture]]:
    """Load the published networks under the paper that names them, as their `source` says."""
    papers: dict[str, list[Architecture]] = {paper: [] for paper in PAPERS}
    for architecture in published():
        paper = next(paper for paper in PAPERS if paper in architecture.source)
        papers[paper].append(architecture)
    return papers


def _names(folder: Path) -> list[str]:
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _document(reference: str | Path, kind: str, folder: Path, names: list[str]) -> tuple[object, str]:
    if f"{reference}-224" in names:  # the lecture's "1.0 MobileNet" is its "1.0 MobileNet-224"
        reference = f"{reference}-224"
    if isinstance(reference, str) and reference in names:
        return parse_yaml((folder / f"{reference}.yaml").read_text(encoding="utf-8"), reference), reference
    if not isinstance(reference, str | Path):
        raise UserError(f"a {kind} is a name, a YAML file or a document, not a {type(reference).__name__}")
    path = Path(reference)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return read_yaml(path, hand_written=True), str(path)
    shown = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])}, ... (see nas list)"
    raise UserError(f"unknown {kind} {str(reference)!r}; give a YAML file or one of: {shown}")
