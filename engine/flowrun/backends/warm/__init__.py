"""Engines of vLLM that stay warm: a process of this user holds one, and other processes ask it over a Unix socket."""
