"""What is odd about a model whose gates were trained, with advice."""

import keras

from tfmtl.layers.gates import gates
from tfmtl.sparsity.open_share import open_share
from tfmtl.sparsity.reach import Reach, all_open, as_if

_UNSETTLED = 0.1


class SparsityWarning(UserWarning):
    """Gates that did not do what they are for."""


def findings(model: keras.Model) -> list[str]:
    """What one should know of a model's gates after training, each with advice.

    * All gates are closed, or none is.
    * An output lost all of its inputs: it is the same for every example.
    * A sub-network that several outputs could share serves one alone.
    * More than a tenth of the gates are neither closed nor wholly open.

    Args:
        model: A built model with hard-concrete gates.

    Returns:
        Sentences; none where all is well.

    Example:
        >>> import keras, tfmtl
        >>> inputs = keras.Input((4, 8))
        >>> outputs = tfmtl.layers.SubNetworkRouting(1, 2)(inputs)
        >>> tfmtl.sparsity.findings(keras.Model(inputs, outputs[:, 0]))[0]
        'None of the 4 gates is closed: ask for less, or train longer.'
    """
    found = gates(model)
    if not found:
        return []
    share = open_share(model)
    said = []
    if share.served == share.total:
        said.append(
            f"None of the {share.total} gates is closed: ask for less, or train longer."
        )
    if share.served == 0:
        said.append(
            f"All of the {share.total} gates are closed: ask for more to stay, or "
            "raise the pressure more slowly."
        )
    if share.between > _UNSETTLED * share.total:
        said.append(
            f"{share.between} of the {share.total} gates are between closed and open: "
            "train longer at the full pressure, or raise `rate_multiplier`."
        )
    reach = Reach.of(model)
    return said if reach is None else [*said, *_of_outputs(reach, model)]


def _of_outputs(reach: Reach, model: keras.Model) -> list[str]:
    said = [
        f"Output {name!r} has lost all of its inputs, it is the same for every "
        "example: ask for more to stay, or give its task more weight."
        for name in reach.constant_outputs()
    ]
    found = gates(model)
    served = reach.sub_networks()
    with as_if(found, all_open(found)):
        possible = reach.sub_networks()
    alone: dict[str, list[str]] = {}
    for sub_network, outputs in served.items():
        if len(outputs) == 1 and len(possible.get(sub_network, ())) > 1:
            alone.setdefault(outputs[0], []).append(str(sub_network))
    said += [
        f"{', '.join(names)} could be shared and serve {output!r} alone: where that is "
        "most of the network, separate networks may do as well."
        for output, names in alone.items()
    ]
    return said
