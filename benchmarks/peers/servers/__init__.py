"""One program per peer; each runs in an environment of its own and imports nothing of Modelyard.

They are told MODEL (a file of XGBoost), HOST and PORT through the environment.
"""
