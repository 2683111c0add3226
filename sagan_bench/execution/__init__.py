"""Where runs are made: a job, what becomes of it, and the engines that make jobs side by side.

A job is a whole run.  Whatever becomes of it is an `Ended` event and a record; the others go on.
"""
