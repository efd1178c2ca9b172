"""How Modelyard is run: the demonstration, the images and the parts of a fleet."""
