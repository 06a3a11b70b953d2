"""The API's server: gunicorn, its connections and its log lines."""
