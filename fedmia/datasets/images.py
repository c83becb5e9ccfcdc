"""From a picture to an array."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


def to_array(image: "Image", size: int | None, grayscale: bool) -> NDArray[np.float32]:
    """Return the picture as (channels, height, width) in [0, 1], stretched to a square of ``size``.

    ``size=None`` keeps height and width.
    """
    from PIL import Image as PillowImage

    if image.mode.startswith("I;16"):  # convert() would cut 16-bit greys off at 255
        image = PillowImage.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    image = image.convert("L" if grayscale else "RGB")
    if size is not None:
        image = image.resize((size, size))
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    channels = pixels[None] if grayscale else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(channels, dtype=np.float32)
