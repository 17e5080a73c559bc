# The app in a container, which starts with credentials alone.   See docs/app.md.
#   docker build -t ace .
#   docker build -t ace --build-arg BASE=nvidia/cuda:12.6.3-runtime-ubuntu24.04 --build-arg TORCH=cu126 .
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG TORCH=cpu
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/venv \
 && useradd --create-home ace
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/${TORCH}
WORKDIR /ace
COPY . .
RUN pip install --no-cache-dir -e '.[app]' && mkdir /results && chown ace /results
USER ace
VOLUME /results
EXPOSE 7861
HEALTHCHECK CMD python -c "import socket; socket.create_connection(('127.0.0.1', 7861), 5)"
ENTRYPOINT ["ace"]
CMD ["app", "--host", "0.0.0.0", "--open_browser", "False", "--output_path", "/results"]
