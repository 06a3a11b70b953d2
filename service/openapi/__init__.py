"""The OpenAPI document, generated from the code, with recorded examples."""
