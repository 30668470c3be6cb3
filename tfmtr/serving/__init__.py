"""The embedded server and its client, both speaking the protocol of TF Serving."""
