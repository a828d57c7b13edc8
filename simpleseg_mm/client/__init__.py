"""Asking an OpenAI-compatible server of a polygon-writing model. No torch, no framework."""
from .chat import ChatClient, Reply, data_url
from .form import AskedForm
from .inferencer import EndpointInferencer
from .transport import EndpointError, Transport

__all__ = ['AskedForm', 'ChatClient', 'EndpointError', 'EndpointInferencer', 'Reply', 'Transport',
           'data_url']
