"""How often each class occurs in the datasets of a loader."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any


@dataclass
class ClassCount:
    """How often a class occurs.

    Attributes:
        images: Images that show it.
        boxes: Boxes of it.
        pixels: Pixels of it, in the files of the masks.
        smallest: (width, height) in pixels of the box with the smallest area; None without boxes.
        largest: (width, height) of the one with the largest.
    """

    images: int = 0
    boxes: int = 0
    pixels: int = 0
    smallest: tuple[float, float] | None = None
    largest: tuple[float, float] | None = None

    def add(self, other: 'ClassCount') -> None:
        """Add the numbers of another dataset."""
        self.images += other.images
        self.boxes += other.boxes
        self.pixels += other.pixels
        for size in filter(None, (other.smallest, other.largest)):
            self.compare(size)

    def compare(self, size: tuple[float, float]) -> None:
        """Let a box of (width, height) be the smallest or the largest."""
        area = size[0] * size[1]
        if self.smallest is None or area < self.smallest[0] * self.smallest[1]:
            self.smallest = size
        if self.largest is None or area > self.largest[0] * self.largest[1]:
            self.largest = size

    def numbers(self) -> dict[str, Any]:
        """Return what was counted, for JSON."""
        shown: dict[str, Any] = dict(images=self.images)
        shown |= dict(pixels=self.pixels) if self.pixels else {}
        if self.smallest and self.largest:
            shown |= dict(boxes=self.boxes, smallest=list(self.smallest), largest=list(self.largest))
        return shown


class ClassCounts:
    """A :class:`ClassCount` for each class, in their order, and then for names of the files that are no class.

    Threads may add at the same time.
    """

    def __init__(self, classes: Iterable[str] = ()) -> None:
        self.classes = list(dict.fromkeys(classes))
        self._lock = Lock()
        self._rows = {name: ClassCount() for name in self.classes}
        self._images: dict[str, set[object]] = {}

    def __getitem__(self, name: str) -> ClassCount:
        return self._rows.get(name) or ClassCount()

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def items(self) -> Iterable[tuple[str, ClassCount]]:
        return self._rows.items()

    def add_box(self, name: str, image: object, width: float, height: float) -> None:
        """Count a box of a class, of a size in pixels; ``image`` is any hashable name of the image."""
        with self._lock:
            row = self._row(name, image)
            row.boxes += 1
            row.compare((width, height))

    def add_pixels(self, name: str, image: object, pixels: int) -> None:
        """Count pixels of a class in the mask of an image."""
        with self._lock:
            self._row(name, image).pixels += pixels

    def add_image(self, name: str, image: object) -> None:
        """Count an image of a class."""
        with self._lock:
            self._row(name, image)

    def add(self, other: 'ClassCounts') -> None:
        """Add the numbers of another dataset, whose images are others."""
        with self._lock:
            self.classes = list(dict.fromkeys([*self.classes, *other.classes]))
            for name, row in other.items():
                self._rows.setdefault(name, ClassCount()).add(row)

    def missing(self) -> list[str]:
        """Return the classes that no image shows."""
        return [name for name in self.classes if not self[name].images]

    def _row(self, name: str, image: object) -> ClassCount:
        """Return the row of a class, in which the image is counted."""
        row, images = self._rows.setdefault(name, ClassCount()), self._images.setdefault(name, set())
        images.add(image)
        row.images = len(images)
        return row
