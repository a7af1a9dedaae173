"""The command line: one program, one small file a verb."""
