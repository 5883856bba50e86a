"""The figures: what the guard costs, against the same thing unguarded in the same run.

Law: one file a figure, each with `measure(bed) -> list[Figure]`, bounded in time and count; `client.py` is what runs
inside. All traffic stays in the playground's namespaces. Run by `make bench`, never by the tests.
"""
