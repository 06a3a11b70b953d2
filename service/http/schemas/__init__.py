"""Schemas of requests and responses; `openapi.yaml` is generated from them."""
