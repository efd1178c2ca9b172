"""Modelyard's predictions beside those of other servers, with the same model under the same load."""
