"""Slow twins in NumPy of the recipes: each network as its paper's equations say.

A twin takes the weights out of a model's layers by their names, and the dense vector
x of every example; it gives each task's prediction. Counts and wiring come from
its own arguments, never from the model.
"""

import math

import numpy as np
import twins


def single_task(model, x, tasks):
    """y_k = tower_k(bottom_k(x))."""
    streams = [
        [expert(model, f"task_{task}_bottom", 0, example) for task in tasks]
        for example in x
    ]
    return predictions(model, tasks, streams)


def shared_bottom(model, x, tasks):
    """y_k = tower_k(bottom(x))."""
    streams = [[expert(model, "level_1", 0, example)] * len(tasks) for example in x]
    return predictions(model, tasks, streams)


def mmoe(model, x, tasks, experts, levels):
    """f_k = sum_i g_k(x)_i f_i(x)."""
    stacks = [expert_stack(model, example, experts, levels) for example in x]
    streams = [
        mixtures(model, "task_gate", example, outputs, len(tasks))
        for example, outputs in zip(x, stacks, strict=True)
    ]
    return predictions(model, tasks, streams)


def omoe(model, x, tasks, experts, levels):
    """f = sum_i g(x)_i f_i(x), which all tasks read."""
    stacks = [expert_stack(model, example, experts, levels) for example in x]
    streams = [
        mixtures(model, "task_gate", example, outputs, 1) * len(tasks)
        for example, outputs in zip(x, stacks, strict=True)
    ]
    return predictions(model, tasks, streams)


def snr(model, x, tasks, experts, kind):
    """v_i = relu(sum_j z_ij W_ij u_j + b_i), or without W_ij; experts per level."""
    streams = []
    for example in x:
        slots = [expert(model, "level_1", e, example) for e in range(experts[0])]
        for level in range(2, len(experts) + 1):
            slots = routed(model, f"level_{level}", slots, experts[level - 1], kind)
        streams.append(routed(model, "task_routing", slots, len(tasks), kind))
    return predictions(model, tasks, streams)


def ple(model, x, tasks, specific, shared, levels):
    """Own and shared experts per level; the shared gate is missing in the last one.

    Args:
        model: The model.
        x: `(batch, d)`.
        tasks: Names.
        specific: Number of own experts of each task.
        shared: Number of shared experts.
        levels: Number of levels.
    """
    module_of = modules(specific, shared)
    streams = []
    for example in x:
        read = [example] * (len(tasks) + 1)
        for level in range(1, levels + 1):
            outputs = module_outputs(model, f"level_{level}_experts", module_of, read)
            gates = []
            for task in range(len(tasks)):
                gates.append([e for e, m in enumerate(module_of) if m in (task, "s")])
            if level < levels and shared > 0:
                gates.append(list(range(len(module_of))))
            name, size = f"level_{level}_gate", len(module_of)
            weights = module_gates(model, name, gates, read, size)
            read = [mixed(own, outputs) for own in weights]
        streams.append(read)
    return predictions(model, tasks, streams)


def cgc(model, x, tasks, specific, shared):
    """PLE of one level."""
    return ple(model, x, tasks, specific, shared, 1)


def adatt(model, x, tasks, specific, shared, levels):
    """Gates over all experts, and a learned sum of a module's own ones.

    The weights of the own ones are 1, and no weights, where every module has a single
    expert. For the arguments see `ple`.
    """
    module_of = modules(specific, shared)
    single = all(count == 1 for count in specific) and shared in (0, 1)
    streams = []
    for example in x:
        read = [example] * (len(tasks) + 1)
        for level in range(1, levels + 1):
            outputs = module_outputs(model, f"level_{level}_experts", module_of, read)
            rows = list(range(len(tasks)))
            if level < levels and shared > 0:
                rows.append("s")
            name, size = f"level_{level}_gate", len(module_of)
            weights = module_gates(model, name, [range(size)] * len(rows), read, size)
            if not single:
                native = iter(weight(model, f"level_{level}_residual", "z"))
            read = []
            for row, module in enumerate(rows):
                stream = mixed(weights[row], outputs)
                for e, own in enumerate(module_of):
                    if own == module:
                        learned = 1.0 if single else next(native)
                        stream = stream + learned * outputs[e]
                read.append(stream)
        streams.append(read)
    return predictions(model, tasks, streams)


def cross_stitch(model, x, tasks, levels):
    """h_k = f_k(g_k), g'_k = sum_l a_kl h_l."""
    size = len(tasks)
    streams = []
    for example in x:
        read = [example] * size
        for level in range(1, levels + 1):
            outputs = [expert(model, f"level_{level}", k, read[k]) for k in range(size)]
            a = weight(model, f"level_{level}_stitch", "z").reshape(size, size)
            read = []
            for k in range(size):
                stream = np.zeros(len(outputs[0]))
                for other in range(size):
                    stream += a[k, other] * outputs[other]
                read.append(stream)
        streams.append(read)
    return predictions(model, tasks, streams)


def weight(model, layer, name):
    """A weight by the name of its layer and its own, in float64."""
    [found] = [w for w in model.get_layer(layer).weights if w.name == name]
    return np.array(found, "f8")


def expert(model, layer, e, x):
    """Expert e of a level on one example: a ReLU MLP."""
    names = [w.name for w in model.get_layer(layer).weights]
    for k in range(1, len(names) // 2 + 1):
        kernel = weight(model, layer, f"kernel_{k}")[e]
        bias = weight(model, layer, f"bias_{k}")[e]
        x = twins.dense(x, kernel, bias, twins.relu)
    return x


def expert_stack(model, x, count, levels):
    """Experts of the last level; those above the first read a mixture of their own."""
    outputs = [expert(model, "level_1", e, x) for e in range(count)]
    for level in range(2, levels + 1):
        read = mixtures(model, f"level_{level}_gate", x, outputs, count)
        outputs = [expert(model, f"level_{level}", e, read[e]) for e in range(count)]
    return outputs


def softmax(x, kernel):
    """softmax(x W) of one example."""
    exponentials = [math.exp(sum(x * column)) for column in kernel.T]
    return [value / sum(exponentials) for value in exponentials]


def mixtures(model, gate, x, outputs, count):
    """Mixtures of all experts by `count` gates that read one x."""
    size = len(outputs)
    if size == 1:
        return [outputs[0]] * count
    kernel = weight(model, gate, "kernel")
    return [
        mixed(softmax(x, kernel[:, k * size : (k + 1) * size]), outputs)
        for k in range(count)
    ]


def mixed(weights, outputs):
    """sum_e g_e f_e of one example."""
    total = np.zeros(len(outputs[0]))
    for g, output in zip(weights, outputs, strict=True):
        total += g * output
    return total


def routed(model, layer, slots, count, kind):
    """The `count` upper sub-networks of one example."""
    log_alpha = 30 * weight(model, layer, "theta")
    z = twins.hard_concrete(log_alpha, -0.1, 1.1)
    bias = weight(model, layer, "bias")
    u = np.array(slots)[None]
    if kind == "average":
        v = twins.snr_aver(u, z)[0]
    else:
        kernel = weight(model, layer, "kernel").transpose(2, 0, 3, 1)
        v = twins.snr_trans(u, kernel, z)[0]
    assert len(v) == count
    return [np.maximum(row + own, 0) for row, own in zip(v, bias, strict=True)]


def modules(specific, shared):
    """The module of each expert: a task's number, or "s"."""
    owners = [task for task, count in enumerate(specific) for _ in range(count)]
    return owners + ["s"] * shared


def module_outputs(model, layer, module_of, read):
    """Each expert on the stream of its module; the shared one is the last."""
    return [
        expert(model, layer, e, read[-1 if module == "s" else module])
        for e, module in enumerate(module_of)
    ]


def module_gates(model, layer, gates, read, experts):
    """Weights of all experts by the gate of each module, which reads its stream.

    Args:
        model: The model.
        layer: Name of the gates' layer, whose kernel has their columns side by side,
            none for a gate of a single expert.
        gates: Per gate the experts that it weighs.
        read: Per module its stream, the shared one last.
        experts: Number of experts.
    """
    choose, found = any(len(own) > 1 for own in gates), []
    kernel = weight(model, layer, "kernel") if choose else np.zeros((1, 0))
    for module, own in enumerate(gates):
        if len(own) == 1:
            found.append(np.eye(experts)[own[0]])
            continue
        columns, kernel = np.split(kernel, [len(own)], axis=1)
        weights = np.zeros(experts)
        weights[own] = softmax(read[module], columns)
        found.append(weights)
    assert kernel.size == 0
    return found


def predictions(model, tasks, streams):
    """Each task's tower on its stream: `(batch, 1)` logits by task name."""
    found = {}
    for k, task in enumerate(tasks):
        hidden, head = tower_weights(model.get_layer(f"{task}_tower"))
        own = [example[k] for example in streams]
        found[task] = twins.tower(own, hidden, head, twins.relu, twins.identity)
    return found


def tower_weights(layer):
    """Kernel and bias of each hidden layer, and those of the head."""
    pairs = [
        tuple(np.array(w, "f8") for w in dense.weights)
        for dense in [*layer.hidden, layer.head]
    ]
    return pairs[:-1], pairs[-1]
