"""The control plane: deployments, stream runs, batch loads, progress certificates, parity runs. SQL state; never
feature data."""

from coeval_pipelines.control.model import ALIVE, ENDED, RUNNING, STOPPED, BatchLoad, Certificate, Deployment, Run
from coeval_pipelines.control.plane import ControlPlane

__all__ = ["ALIVE", "ENDED", "RUNNING", "STOPPED", "BatchLoad", "Certificate", "ControlPlane", "Deployment", "Run"]
