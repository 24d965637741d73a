"""Writes scikit-learn's 1,797 handwritten digits as PNG files, a subfolder a digit.

python docs/tutorial/pictures.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(folder: Path) -> None:
    """Writes the pictures of 8x8 pixels into a folder, as DIGIT/NUMBER.png."""
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(digit) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8)).save(path)
    print(f"{len(digits.images)} pictures in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
