"""A user's own pictures, one folder a class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmia.datasets.base import Dataset, DatasetSource
from fedmia.datasets.images import to_array
from fedmia.errors import ConfigError, expect

_SUFFIXES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(DatasetSource):
    """``path/<class name>/*.png|jpg|jpeg`` as images of shape (channels, size, size) in [0, 1].

    Attributes
    ----------
    path
        Folder with one folder a class; names starting with a dot are left out.
    size
        Height and width in pixels that every picture is stretched to.
    grayscale
        One channel instead of three.
    """

    path: str
    size: int = 32
    grayscale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.size >= 1, "size", self.size, "at least 1 pixel")

    def read(self, rng: np.random.Generator) -> Dataset:
        """Return all pictures, by class and file name; ``rng`` is not used."""
        root = Path(self.path).expanduser()
        expect(root.is_dir(), "path", self.path, "an existing folder")
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        files = [[f for f in sorted(p.iterdir()) if f.suffix.lower() in _SUFFIXES] for p in folders]
        for folder, pictures in zip(folders, files, strict=True):
            expect(bool(pictures), "path", folder, "pictures (png, jpg), this is an empty class")
        expect(
            len(folders) >= 2, "path", self.path, f"at least 2 class folders, got {len(folders)}"
        )
        return Dataset(
            x=np.stack([self._picture(file) for pictures in files for file in pictures]),
            y=np.repeat(np.arange(len(folders)), [len(pictures) for pictures in files]),
            class_names=tuple(folder.name for folder in folders),
        )

    def _picture(self, file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        from PIL import Image

        try:
            with Image.open(file) as image:
                return to_array(image, self.size, self.grayscale)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(f"path={file}: expected a readable picture ({reason})") from None
