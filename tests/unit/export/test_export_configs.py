"""The configuration of TF Serving in `export/`: does it parse, does it fit together."""

import json
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_serving", reason="needs the extra `.[serving]`")

from batches import MAX_ROWS
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from tensorflow_serving.config import model_server_config_pb2

EXPORT = Path(__file__).resolve().parents[3] / "export"
DOCKERFILE = (EXPORT / "Dockerfile").read_text()

# Fields of the server's own protocol buffers, which its Python package lacks.
FIELDS = {
    "Int64Value": [("value", 1, "int64", False)],
    "BatchingParameters": [
        ("max_batch_size", 1, "Int64Value", False),
        ("batch_timeout_micros", 2, "Int64Value", False),
        ("max_enqueued_batches", 3, "Int64Value", False),
        ("num_batch_threads", 4, "Int64Value", False),
        ("allowed_batch_sizes", 6, "int64", True),
        ("pad_variable_length_inputs", 7, "bool", False),
    ],
    "PrometheusConfig": [("enable", 1, "bool", False), ("path", 2, "string", False)],
    "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig", False)],
}
Field = descriptor_pb2.FieldDescriptorProto


def message(name):
    """An empty message of one of the types above."""
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="serving")
    for kind, fields in FIELDS.items():
        described = file.message_type.add(name=kind)
        for field, number, of, repeated in fields:
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            found = described.field.add(name=field, number=number, label=label)
            if of in FIELDS:
                found.type, found.type_name = Field.TYPE_MESSAGE, f".serving.{of}"
            else:
                found.type = Field.Type.Value(f"TYPE_{of.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"serving.{name}")
    return message_factory.GetMessageClass(descriptor)()


def parsed(file, into):
    return text_format.Parse((EXPORT / file).read_text(), into)


def instruction(name):
    """The JSON list of an instruction of the Dockerfile."""
    lines = DOCKERFILE.replace("\\\n", " ")
    [found] = re.findall(rf"^{name} .*?(\[.*\])$", lines, re.MULTILINE)
    return json.loads(found)


def test_batching_parameters():
    batching = parsed("batching_parameters.txt", message("BatchingParameters"))
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) and sizes[0] == 1
    assert sizes[-1] == batching.max_batch_size.value == MAX_ROWS
    assert batching.batch_timeout_micros.value > 0
    assert batching.max_enqueued_batches.value > 0
    assert batching.num_batch_threads.value > 0
    assert not batching.pad_variable_length_inputs


def test_an_unknown_parameter_would_be_noticed():
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch { value: 1 }", message("BatchingParameters"))


def test_monitoring():
    prometheus = parsed("monitoring.config", message("MonitoringConfig"))
    assert prometheus.prometheus_config.enable
    path = prometheus.prometheus_config.path
    assert path == "/monitoring/prometheus/metrics"
    assert path in (EXPORT / "README.md").read_text()


def test_models():
    config = parsed("models.config", model_server_config_pb2.ModelServerConfig())
    [model] = config.model_config_list.config
    assert (model.name, model.base_path) == ("ranker", "/models/ranker")
    assert model.model_platform == "tensorflow"


def test_the_image_reads_the_files_that_it_has():
    [copied] = re.findall(r"^COPY (.*) /config/$", DOCKERFILE, re.MULTILINE)
    flags = dict(flag.removeprefix("--").split("=") for flag in instruction("CMD"))
    read = {
        Path(value).name for value in flags.values() if value.startswith("/config/")
    }
    assert read == set(copied.split())
    assert all((EXPORT / name).is_file() for name in read)
    assert flags["enable_batching"] == "true"
    assert {flags["port"], flags["rest_api_port"]} == {"8500", "8501"}
    assert re.search(r"^USER (?!root|0)", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("model, healthy", [("ranker", True), ("other", False)])
def test_the_health_check(rest_address, model, healthy):
    port = rest_address.partition(":")[2]
    [command] = re.findall(r"CMD (\[\"/bin/bash\".*\])$", DOCKERFILE, re.MULTILINE)
    words = [
        word.replace("8501", port).replace("/ranker", f"/{model}")
        for word in json.loads(command)
    ]
    process = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (process.returncode == 0) is healthy, process.stderr


def test_compose():
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((EXPORT / "compose.yaml").read_text())
    [service] = compose["services"].values()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert {port.rpartition(":")[2] for port in service["ports"]} == {"8500", "8501"}
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    mounted = {volume["target"]: volume for volume in service["volumes"]}
    assert all(volume["read_only"] for volume in mounted.values())
    assert set(mounted) == {"/models", "/config"}
    assert mounted["/config"]["source"] == service["build"]["context"] == "."
    config = parsed("models.config", model_server_config_pb2.ModelServerConfig())
    for model in config.model_config_list.config:
        assert Path(model.base_path).parent == Path("/models")


def test_the_readme_names_every_file():
    readme = (EXPORT / "README.md").read_text()
    files = [path.name for path in EXPORT.iterdir() if path.is_file()]
    missing = [n for n in files if n not in readme and n != "README.md"]
    assert not missing
