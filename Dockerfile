# One image for the API and the workers; the command selects which.
FROM python:3.11-slim AS viewer

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 NODE_USE_SYSTEM_CA=1 PATH=/node/bin:$PATH
WORKDIR /app/viewer
# Node.js is a locked Python package like the others, so one base image is enough.
COPY viewer/requirements.lock ./
RUN python -m venv /node && pip install --require-hashes -r requirements.lock
COPY viewer/package.json viewer/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY openapi.yaml /app/
COPY viewer ./
RUN npm run build

FROM python:3.11-slim AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app

# The kernels' compiler and the dependencies have their own layers, rebuilt only when the lock changes.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY requirements.lock ./
RUN python -m venv /venv && /venv/bin/pip install --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY cutaway ./cutaway
COPY service ./service
COPY worker ./worker
COPY --from=viewer /app/service/viewer ./service/viewer
RUN /venv/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/venv/bin:$PATH
COPY --from=build /venv /venv
RUN useradd --system --no-create-home cutaway
USER cutaway

EXPOSE 8000
CMD ["cutaway", "api", "--host", "0.0.0.0", "--port", "8000"]
