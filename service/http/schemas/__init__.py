"""What requests and answers look like, by resource; `openapi.yaml` is made from these."""
