#!/bin/sh
# Stands in for the walcast binary in the tests of its runner: prints its arguments, does what STAND_IN says, and waits
# for signals.
echo "called with $*"
echo "slot of the environment: ${WALCAST_SLOT-none}" >&2
trap 'echo draining; exit 0' TERM
case ${STAND_IN-} in
    fail) echo " WARN no such database" >&2; exit 3 ;;
    in-use) echo " WARN the slot is in use by process 7" >&2 ;;
esac
echo started
while :; do sleep 0.02; done
