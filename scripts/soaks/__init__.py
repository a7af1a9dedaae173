"""Long forms of the tests that nothing is lost, one module a matter."""
