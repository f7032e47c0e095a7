"""The command line: its commands parse, call and print. They decide nothing.

Help, a usage error or a short command must not wait for what another command needs, and imports are
nearly all of the time that these take. So a command imports what it needs when it runs.
"""
