# The image of the project (docker/harness.Dockerfile) with Ray, for the pods of kuberay.yaml.
#   docker build -f docs/fleet/ray.Dockerfile -t REGISTRY/bench-ray:0.1.0 .
FROM serving-bench/harness:0.1.0
USER root
# KubeRay looks after pods, and submits jobs, through what `default` brings.
RUN /opt/venv/bin/python -m ensurepip && /opt/venv/bin/python -m pip install --no-cache-dir "ray[default]==2.60.0"
USER 10001
ENTRYPOINT []
