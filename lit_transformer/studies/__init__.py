"""Grids of training runs and their reports: one file asks a question, one command answers it.

::

    read_study(["positions"])    Engine(Plan(study), folder, program).run()    write_report(folder)    draw(folder)
"""
