"""What the similarity engine costs, beside the packages one would use instead.

``inputs`` makes heads with known answers, ``ours`` and ``peers`` hold what is measured, ``measure``
runs each in a process of its own, ``agreement`` refuses a number whose answer is wrong, ``records``
keeps what was measured, ``table`` and ``targets`` print it. Run it by ``python -m benchmarks``.
"""
