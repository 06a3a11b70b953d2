# One image for the api and the worker: which of them a container is, its command says.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# The dependencies by themselves: this layer is built again only when the lock changes.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md ./
COPY service ./service
COPY worker ./worker
RUN pip install --no-deps --no-build-isolation . && useradd --system --no-create-home cutaway
USER cutaway

EXPOSE 8000
CMD ["cutaway", "api", "--host", "0.0.0.0", "--port", "8000"]
