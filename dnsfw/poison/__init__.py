"""The DNS-poisoning regression bench: scenarios as data, played against dnsfw's resolver or another forwarder.

Law: nothing that guards imports this package. What an attack is stands in `scenarios/`, how one is written in
`scenario`, who plays the attacker in `upstream` and `spoofer`, what came of it in `verdict`.
"""
