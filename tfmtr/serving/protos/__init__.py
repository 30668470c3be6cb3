"""Protobuf messages that no light package has: `.proto` files, and what `make protos` makes of them, `protos.binpb`."""

import functools
from importlib import resources

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in FileDescriptorSet.FromString(resources.files(__name__).joinpath("protos.binpb").read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def messages(file: str) -> dict[str, type[Message]]:
    """The messages of a `.proto` file of this folder: `{name: class}`.

    Example:
    >>> messages("configuration.proto")["SSLConfig"](client_verify=True)
    client_verify: true
    """
    descriptors = _pool().FindFileByName(file).message_types_by_name
    return {name: message_factory.GetMessageClass(descriptor) for name, descriptor in descriptors.items()}
