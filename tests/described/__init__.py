"""What the OpenAPI document says, put to the test with schemathesis."""
