"""What train.py calls by name: set-up, stages, schedule, optimizer, state, run folder, report."""

from __future__ import annotations
