"""The HTTP server: requests that join and leave one batch between decoding steps, and a page to try the model.

::

    Slots   rows of one preallocated cache, entered and left at any step
    Engine  a thread that decodes what is in them, and a bounded queue before it
    app     OpenAI's completions over HTTP, streaming too; the page
"""

from lit_transformer.serving.engine import Busy, Engine, Job, Limits
from lit_transformer.serving.requests import Event, Want
from lit_transformer.serving.slots import Slots

__all__ = ["Busy", "Engine", "Event", "Job", "Limits", "Slots", "Want"]
