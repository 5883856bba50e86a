"""What the kernel gives every program: namespaces, cgroups, capabilities, system call filters, processes.

Law: nothing here knows of policies, packets or names.
"""
