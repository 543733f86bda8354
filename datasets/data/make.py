"""Makes the two files of this folder from their originals; each run writes the same bytes.

    pip install numpy scikit-learn
    python3 make.py FASHION     # FASHION: a folder with the four .gz files of Fashion-MNIST

Each file is an npz archive with the arrays x_train, y_train, x_test, y_test, all of them uint8:
images as N H W with black 0 and white 255, labels as N.
"""

import gzip
import io
import pathlib
import sys
import zipfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = pathlib.Path(__file__).parent


def save(name, **arrays):
    """An npz file as numpy writes it, but with a fixed date and the strongest deflate."""
    with zipfile.ZipFile(HERE / name, "w") as archive:
        for key, array in arrays.items():
            npy = io.BytesIO()
            np.save(npy, np.ascontiguousarray(array, dtype=np.uint8))
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, npy.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


def digits():
    x, y = load_digits(return_X_y=True)
    x = np.floor(x.reshape(-1, 8, 8) * 255 / 16 + 0.5)  # 0..16 to 0..255, rounded
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=450, random_state=0)
    save("digits.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def fashion(folder):
    def idx(name, header):
        return np.frombuffer(gzip.open(folder / f"{name}-ubyte.gz").read(), np.uint8, offset=header)

    save(
        "fashion-mini.npz",
        x_train=idx("train-images-idx3", 16).reshape(-1, 28, 28)[:10000],
        y_train=idx("train-labels-idx1", 8)[:10000],
        x_test=idx("t10k-images-idx3", 16).reshape(-1, 28, 28),
        y_test=idx("t10k-labels-idx1", 8),
    )


digits()
fashion(pathlib.Path(sys.argv[1]))
