"""Asking an OpenAI-compatible server of a polygon-writing model. No torch, no framework."""
from .chat import ChatClient, EndpointError, Reply, data_url
from .form import AskedForm
from .inferencer import EndpointInferencer

__all__ = ['AskedForm', 'ChatClient', 'EndpointError', 'EndpointInferencer', 'Reply', 'data_url']
