"""Grids of training runs and their reports: one file asks a question, one command answers it.

::

    read_study(["positions"])      Engine(study, folder, program).run()      write_report(folder)
"""
