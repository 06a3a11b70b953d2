"""The service in OpenAPI: written from the code, with recorded examples."""
