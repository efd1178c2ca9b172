"""The API as an OpenAPI document, made from the routes, their schemas and the table of errors."""
