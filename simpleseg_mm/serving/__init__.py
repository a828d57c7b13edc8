"""A page and a JSON API for a trained model, and Label Studio's ML-backend protocol."""
from .app import Settings, create_app
from .connections import check_address, make_server
from .engine import Busy, Engine

__all__ = ['Busy', 'Engine', 'Settings', 'check_address', 'create_app', 'make_server']
