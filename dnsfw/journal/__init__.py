"""What happened, written down and told: records, counts, reports, metrics.

Law: nothing here decides anything.
"""
