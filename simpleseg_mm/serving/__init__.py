"""A page and a JSON API for a trained model, and Label Studio's ML-backend protocol."""
from .app import Settings, create_app
from .connections import make_server
from .engine import Busy, Engine

__all__ = ['Busy', 'Engine', 'Settings', 'create_app', 'make_server']
