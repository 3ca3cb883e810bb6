"""The precision of what is never computed in half: gates and heads."""

import keras


def precise(policy: keras.DTypePolicy) -> str:
    """`"float64"` where a layer computes in it, else `"float32"`.

    Args:
        policy: The layer's `dtype_policy`.

    Example:
        >>> import keras
        >>> from tfmtl.layers.precision import precise
        >>> precise(keras.DTypePolicy("mixed_float16"))
        'float32'
    """
    return "float64" if policy.compute_dtype == "float64" else "float32"
