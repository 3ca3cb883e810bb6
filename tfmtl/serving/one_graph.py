"""Many signatures over one function, in one small graph.

`tf.saved_model.save` gives each signature placeholders and two functions of its own,
and a server copies all of them several times while it loads: half of the time that
a ranker's graph takes.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from tfmtl.serving.saved_model import DEFAULT, INIT_OP

PREDICT = "tensorflow/serving/predict"

Tensors = Mapping[str, tf.Tensor]
Function = Callable[[Tensors], Tensors]


class Signature(NamedTuple):
    """One thing to ask for, as tensors of the graph.

    Attributes:
        inputs: Placeholders by name.
        outputs: Tensors by name.
        method: The method of TF Serving's API that it answers.
    """

    inputs: Tensors
    outputs: Tensors
    method: str = PREDICT


Signatures = Callable[[Signature, Function], Mapping[str, Signature]]


def default_alone(default: Signature, _: Function) -> dict[str, Signature]:
    """The signatures of what answers in one way only."""
    return {DEFAULT: default}


def with_signatures(folder: Path, signatures: Signatures) -> None:
    """Gives a SavedModel other signatures, which share what they compute.

    What only TensorFlow's Python needs to make functions again is left out, so that
    `tf.saved_model.load` finds the new signatures as a server does. An initialisation
    that does nothing is left out too: a server would prepare the graph for it. So is
    `fingerprint.pb`, which loaders do without: it was that of the old graph.

    Args:
        folder: A SavedModel with the signature `serving_default`, not yet published.
        signatures: Makes the signatures, `serving_default` among them, from that
            one and from a function that calls its model with other tensors.

    Example:
        `with_signatures(folder, default_alone)`
    """
    file = folder / "saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    [old] = proto.meta_graphs
    with tf.Graph().as_default() as graph:
        made = signatures(*_default(old, graph))
        _initialise(old, graph)
        new = tf.compat.v1.train.export_meta_graph(
            graph=graph, saver_def=old.saver_def, strip_default_attrs=True
        )
    new.meta_info_def.tags.extend(old.meta_info_def.tags)
    new.asset_file_def.extend(old.asset_file_def)
    _name_tables(new, folder)
    for name, signature in made.items():
        new.signature_def[name].CopyFrom(_signature_def(signature))
    old.CopyFrom(new)
    file.write_bytes(proto.SerializeToString(deterministic=True))
    (folder / "fingerprint.pb").unlink(missing_ok=True)


def _default(
    written: meta_graph_pb2.MetaGraphDef, graph: tf.Graph
) -> tuple[Signature, Function]:
    """Imports a graph: `serving_default`, and what calls its model once more."""
    tf.graph_util.import_graph_def(written.graph_def, name="")
    ends = written.signature_def[DEFAULT]
    inputs, outputs = (
        {name: graph.get_tensor_by_name(info.name) for name, info in infos.items()}
        for infos in (ends.inputs, ends.outputs)
    )
    [call] = {tensor.op for tensor in outputs.values()}
    columns = {tensor.name: name for name, tensor in inputs.items()}
    once = graph_pb2.GraphDef(
        node=[call.node_def],
        library=written.graph_def.library,
        versions=written.graph_def.versions,
    )

    def model(values: Tensors) -> Tensors:
        given = {  # what is no column is a variable or a look-up table
            end.name: values[columns[end.name]] if end.name in columns else end
            for end in call.inputs
        }
        called = [tensor.name for tensor in outputs.values()]
        found = tf.graph_util.import_graph_def(once, given, called, name="")
        return apart(dict(zip(outputs, found, strict=True)))

    def apart(tensors: Tensors) -> Tensors:
        """Each output for itself: a session would compute all outputs of a call."""
        [called] = {tensor.op for tensor in tensors.values()}
        with tf.control_dependencies([called]):  # else it is not put in line: it has
            done = tf.no_op()  # side effects, as TensorFlow sees it
        with tf.control_dependencies([done]):
            # OpenVINO takes names of functions' operations for those of the graph
            alone = {k: tf.identity(v, "served_output") for k, v in tensors.items()}
        for name, tensor in alone.items():
            tensor.set_shape(tf.TensorShape(ends.outputs[name].tensor_shape))
        return alone

    return Signature(inputs, apart(outputs)), model


def _initialise(written: meta_graph_pb2.MetaGraphDef, graph: tf.Graph) -> None:
    """Says what loading has to do beyond reading variables, where it has."""
    [info] = written.signature_def[INIT_OP].outputs.values()
    operation = graph.get_operation_by_name(info.name)
    if operation.type != "NoOp" or operation.control_inputs:
        # as a signature `tf.saved_model.load` would not give it the vocabularies' paths
        graph.add_to_collection("saved_model_main_op", operation)


def _name_tables(written: meta_graph_pb2.MetaGraphDef, folder: Path) -> None:
    """Names look-up tables by what they are in, not by a path of this machine.

    TensorFlow takes tables of one name for one table, in Python those of all models.
    """
    library = written.graph_def.library.function
    nodes = [*written.graph_def.node, *(n for f in library for n in f.node_def)]
    tables = [n for n in nodes if n.op == "HashTableV2" and "shared_name" in n.attr]
    shared = [table.attr["shared_name"] for table in tables]
    numbers: dict[bytes, int] = {}
    for name in shared:
        name.s = b"%d" % numbers.setdefault(name.s, len(numbers))
    content = hashlib.sha256(written.graph_def.SerializeToString(deterministic=True))
    for asset in written.asset_file_def:
        with (folder / "assets" / asset.filename).open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    for name in shared:
        name.s = b"table_%b_%b" % (name.s, content.hexdigest()[:16].encode())


def _signature_def(signature: Signature) -> meta_graph_pb2.SignatureDef:
    inputs, outputs = (
        {name: _info(tensor) for name, tensor in ends.items()}
        for ends in (signature.inputs, signature.outputs)
    )
    return meta_graph_pb2.SignatureDef(
        inputs=inputs, outputs=outputs, method_name=signature.method
    )


def _info(tensor: tf.Tensor) -> meta_graph_pb2.TensorInfo:
    return meta_graph_pb2.TensorInfo(
        name=tensor.name,
        dtype=tensor.dtype.as_datatype_enum,
        tensor_shape=tensor.shape.as_proto(),
    )
