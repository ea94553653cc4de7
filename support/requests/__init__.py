"""Requests to an OpenAI-compatible frontend, their cancellation, and the ledger of all that came back."""

from support.requests.client import (
    Answer,
    CancellableRequest,
    Pending,
    send_chat_completion_request,
    send_completion_request,
    start_request,
)
from support.requests.ledger import Ledger, LedgerEntry

__all__ = [
    "Answer",
    "CancellableRequest",
    "Ledger",
    "LedgerEntry",
    "Pending",
    "send_chat_completion_request",
    "send_completion_request",
    "start_request",
]
