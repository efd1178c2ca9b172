"""XGBoost's own C function for predictions on rows in memory, without what its Python package does around it.

`Booster.inplace_predict` looks at every kind of table that it may be given; for a few rows that takes longer than the
prediction. The C function is documented and stable; the way to it is the library that the package has loaded.
"""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

_ASKED = (
    b'{"type":0,"training":false,"iteration_begin":0,"iteration_end":0,"missing":NaN,"strict_shape":false,"cache_id":0}'
)
_ROWS = b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}'


class DensePredictor:
    """Predicts with one booster. Its buffer belongs to the booster: not to be used by two threads at once."""

    def __init__(self, booster: Any) -> None:
        from xgboost import core

        self._core, self._booster = core, booster
        self._predict = core._LIB.XGBoosterPredictFromDense
        # Where the library is told of rows; it would make one for each call, and look for the limits of its group then.
        self._proxy = ctypes.c_void_p()
        core._check_call(core._LIB.XGProxyDMatrixCreate(ctypes.byref(self._proxy)))
        weakref.finalize(self, core._LIB.XGDMatrixFree, self._proxy)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """What `Booster.inplace_predict` returns for finite or missing (NaN) values.

        features : float32 of shape (rows, features). Raises xgboost.core.XGBoostError.
        """
        rows = np.ascontiguousarray(features, dtype=np.float32)
        shape, dimensions = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        values = ctypes.POINTER(ctypes.c_float)()
        told = _ROWS % (rows.ctypes.data, rows.shape[0], rows.shape[1])
        handle, refs = self._booster.handle, (ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(values))
        self._core._check_call(self._predict(handle, told, _ASKED, self._proxy, *refs))
        sizes = shape[: dimensions.value]
        count = 1
        for size in sizes:
            count *= size
        if count == 0:
            return np.empty(sizes, np.float32)
        # The buffer is used again by the next call.
        buffer: Any = (ctypes.c_float * count).from_address(ctypes.addressof(values.contents))
        return np.frombuffer(buffer, np.float32).reshape(sizes).copy()
