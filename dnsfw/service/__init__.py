"""dnsfw as a service of systemd's: the unit, and its installation.

Law: files and accounts of the host, made and removed as a package would. Whether the service runs is the
administrator's to say: nothing here starts it.
"""
