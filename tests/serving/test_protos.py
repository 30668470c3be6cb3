"""What is checked in of protobuf's compiler is made of the `.proto` files as they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

import tfmtr.serving.protos
from tfmtr.serving.protos import messages

FOLDER = Path(tfmtr.serving.protos.__file__).parent
FILES = [file.name for file in sorted(FOLDER.glob("*.proto"))]


def kind(field):
    """What the field's line says before its name."""
    message = field.message_type
    if message and message.GetOptions().map_entry:
        return f"map<string, {kind(message.fields_by_name['value'])}>"
    other = message or field.enum_type
    if other is None:
        return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return other.full_name if other.full_name.startswith("google.") else other.name


@pytest.mark.parametrize("file", FILES)
def test_messages_are_those_of_their_file(file):
    text = (FOLDER / file).read_text()
    written = {}
    for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        lines = re.findall(r"^  (repeated )?(\S.*?) (\w+) = (\d+);", body, re.MULTILINE)
        written[name] = {int(number): (kind, field, bool(repeated)) for repeated, kind, field, number in lines}
    assert len(written) > 3
    made = {}
    for name, message in messages(file).items():
        fields = message.DESCRIPTOR.fields_by_number
        made[name] = {n: (kind(f), f.name, f.is_repeated and "map<" not in kind(f)) for n, f in fields.items()}
    assert made == written, "run `make protos`"


def test_the_compiler_makes_what_is_checked_in(tmp_path):
    out = tmp_path / "protos.binpb"
    options = [f"--proto_path={FOLDER}", "--include_imports", f"--descriptor_set_out={out}"]
    # In a process of its own: beside TensorFlow's protobuf the compiler's breaks down.
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *FILES], check=True)
    made, kept = (FileDescriptorSet.FromString(file.read_bytes()) for file in (out, FOLDER / "protos.binpb"))
    assert made == kept, "run `make protos`"
