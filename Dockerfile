# The one image of docker-compose.yml's own services; which service it is says the command.
FROM python:3.12-slim

ENV DAGSTER_HOME=/etc/dagster \
    HOME=/tmp \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# Named volumes take over the owner of the directories that they are mounted on.
RUN groupadd --gid 10001 iot \
    && useradd --uid 10001 --gid iot --home-dir /tmp --no-create-home iot \
    && install --directory --owner iot --group iot /var/lib/iot_pipeline /var/lib/dagster \
    && install --directory "$DAGSTER_HOME"

WORKDIR /app

COPY requirements-compose.txt .
RUN pip install -r requirements-compose.txt

COPY . .
RUN pip install --no-deps --editable . \
    && python -m compileall -q iot_pipeline \
    && cp docker/workspace.yaml "$DAGSTER_HOME" \
    && cat dagster_home/dagster.yaml docker/dagster.yaml > "$DAGSTER_HOME/dagster.yaml"

USER 10001:10001
