"""`tfmtr rollback`."""

from tfmtr.cli.common_options import Service


def rollback(service: Service) -> None:
    """Make the model live again that was so before the newest one."""
    from tfmtr.operations.service import rollback as go_back

    go_back(service)
