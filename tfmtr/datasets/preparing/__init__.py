"""The steps of `prepare`: functions from frozen results to frozen results; `steps` has their order."""
