# pplx-embed serve. For the CPU: docker build -t pplx-embed .
# For CUDA: docker build -t pplx-embed:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
RUN pip install --no-cache-dir build
COPY . /source
RUN python -m build --wheel --outdir /wheels /source

FROM python:${PYTHON}-slim
# Which torch: its builds for CUDA bring their libraries along, so the base image needs the driver alone.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.6" \
 && pip install --no-cache-dir "$(echo /wheels/*.whl)[serve]" \
 && rm -r /wheels \
 && useradd --uid 1000 --create-home pplx-embed \
 && install --directory --owner=pplx-embed /models
# Weights are downloaded into the volume once; a full one may be mounted read-only.
ENV HF_HOME=/models
VOLUME /models
USER pplx-embed
EXPOSE 8080
# The first start downloads gigabytes.
HEALTHCHECK --start-period=30m --interval=15s --timeout=5s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=4)"]
STOPSIGNAL SIGTERM
# It listens for other machines, and so wants PPLX_EMBED_API_KEY, or --no-key.
ENTRYPOINT ["pplx-embed"]
CMD ["serve", "0.6b", "--host", "0.0.0.0"]
