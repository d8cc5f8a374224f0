"""A folder of small images of two classes, to pack."""

from tests.data.test_foreign import picture


def write_cats_and_dogs(folder, count):
    """Write images 0..count-1 by turns into `cat` and `dog`, all different; return the folder."""
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return folder
