# The page and the JSON API of a bundle that holds ONNX, without MindSpore.
#
#   docker build -t classify .
#   docker run --rm --read-only --cap-drop ALL --tmpfs /tmp -p 127.0.0.1:8000:8000 \
#     -v "$PWD/runs/cats_vs_dogs/export:/bundle:ro" classify
#
# Arguments after the image's name are those of `python -m export serve /bundle`, as --public_url.

FROM python:3.12-slim AS packages
COPY requirements-serve.txt /
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r /requirements-serve.txt

FROM python:3.12-slim
COPY --from=packages /venv /venv
COPY datasets /app/datasets
COPY pretrained /app/pretrained
COPY finetune /app/finetune
COPY export /app/export
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=30s --interval=30s --timeout=5s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "export", "serve", "/bundle", "--host", "0.0.0.0", "--port", "8000"]
