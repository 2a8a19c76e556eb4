"""What Trellis can do, measured beside what exists today, in the same run.

`python -m benchmarks [NAME]` runs all or one; each is also `python -m benchmarks.NAME`.
They measure and judge nothing: a figure that misses its target is reported, not failed.
"""
